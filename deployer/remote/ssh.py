"""The only place that knows the flags of the ssh client. Builds command lines and runs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import FailureKind, StepFailed
from deployer.remote.host_keys import known_as, read_keys


@dataclass(frozen=True, kw_only=True)
class Target:
    """A host to log in to. `last_words` gives the end of its console's log, or nothing where there is none."""

    name: str
    address: str
    port: int
    user: str
    private_key: Path
    known_hosts: Path
    last_words: Callable[[], str]

    @property
    def known_as(self) -> str:
        return known_as(self.address, self.port)

    @property
    def pinned(self) -> frozenset[str]:
        """The keys that the host must show, if any."""
        return read_keys(self.known_hosts, self.known_as)


def ssh_argv(target: Target, *command: str, interactive: bool = False, patience: int = 10) -> tuple[str, ...]:
    """The command line that logs in to `target` and runs `command`, or a shell where there is none.

    As with ssh, the words of `command` are joined by spaces and read by the remote shell. A host whose key is pinned
    must show that key; another one's is learned. Not `interactive`: nothing is ever asked. `patience` is in seconds,
    for connection and banner. Raises StepFailed where known_hosts cannot be read, or a path cannot be told to ssh.
    """
    options = (
        f"IdentityFile={_quoted(target.private_key)}",  # with -i a path that needs expanding is not found
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={_quoted(target.known_hosts)}",
        # accept-new alone would also take a key of another type for a host that is pinned already.
        f"StrictHostKeyChecking={'yes' if target.pinned else 'accept-new'}",
        f"User={target.user}",
        f"ConnectTimeout={patience}",
        *(() if interactive else _SILENT),
    )
    return _argv(options, target.address, target.port, *command)


def host_key_argv(address: str, port: int, *, pinned: frozenset[str], learned: Path) -> tuple[str, ...]:
    """Has what answers there prove its host key, which ssh writes to `learned`; offers it no key of ours.

    Not ssh-keyscan: that asks for each type on a connection of its own, and where one of them breaks the others look
    like the keys of another machine.
    """
    # Without a preference for the type that is pinned, a host with several keys would show another one.
    kinds = ",".join(sorted({key.split()[0] for key in pinned})).replace("ssh-rsa", "rsa-sha2-512,rsa-sha2-256")
    options = (
        f"UserKnownHostsFile={_quoted(learned)}",
        "StrictHostKeyChecking=accept-new",
        "PubkeyAuthentication=no",
        "ConnectTimeout=10",
        *((f"HostKeyAlgorithms=^{kinds}",) if kinds else ()),
        *_SILENT,
    )
    return _argv(options, address, port, "true")


_SILENT = ("BatchMode=yes", "RequestTTY=no")
_ALWAYS = (
    "PasswordAuthentication=no",
    "KbdInteractiveAuthentication=no",
    "GlobalKnownHostsFile=/dev/null",
    "ServerAliveInterval=5",
    "LogLevel=ERROR",
)


def _argv(options: tuple[str, ...], address: str, port: int, *command: str) -> tuple[str, ...]:
    words = (word for option in (*options, *_ALWAYS) for word in ("-o", option))
    # No configuration file is read (-F none): the same command must do the same on every computer.
    return ("ssh", "-F", "none", "-p", str(port), *words, "--", address, *command)


def _quoted(path: Path) -> str:
    """A path as one word of a configuration line, which is what -o takes; the same after ssh has expanded it."""
    text = str(path.absolute())
    if "${" in text or not text.isprintable():
        detail = f"{text!r}: ssh would expand ${{...}} and cannot be told of control characters"
        raise StepFailed("ssh cannot use files in this directory", kind=FailureKind.INPUT, detail=detail)
    return '"' + text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'
