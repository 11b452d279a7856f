"""The only place that knows the flags of the ssh client. Builds command lines and runs nothing."""

from __future__ import annotations

import os
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


def ssh_argv(target: Target, *command: str, interactive: bool = False, connect_timeout: float = 10) -> tuple[str, ...]:
    """The command line that logs in to `target` and runs `command`, or a shell where there is none.

    As with ssh, the words of `command` are joined by spaces and read by the remote shell. A host whose key is pinned
    must show that key; another one's is learned. Not `interactive`: nothing is ever asked. Raises StepFailed where
    known_hosts cannot be read, or a path cannot be told to ssh.
    """
    # accept-new alone would also take a key of another type for a host that is pinned already.
    pinned = bool(read_keys(target.known_hosts, target.known_as))
    checking = "yes" if pinned else "accept-new"
    modes = () if interactive else _SILENT
    return _argv(
        target, command, target.known_hosts, f"StrictHostKeyChecking={checking}", *modes, within=connect_timeout
    )


def learning_argv(target: Target, *command: str, learned: Path, connect_timeout: float) -> tuple[str, ...]:
    """Like `ssh_argv`, for a first contact: the host's key is written to `learned`, once the host has proven it."""
    return _argv(target, command, learned, "StrictHostKeyChecking=accept-new", *_SILENT, within=connect_timeout)


def host_key_argv(target: Target, *, learned: Path, connect_timeout: float) -> tuple[str, ...]:
    """Has the host prove its key, writes that to `learned`, and offers the host no key of ours."""
    # Without a preference for the type that is pinned, a host with several keys would show another one.
    types = {key.split()[0] for key in read_keys(target.known_hosts, target.known_as)}
    known = ",".join(algorithms for kind, algorithms in _ALGORITHMS.items() if kind in types)
    modes = ("StrictHostKeyChecking=accept-new", "PubkeyAuthentication=no", *_SILENT)
    preference = (f"HostKeyAlgorithms=^{known}",) if known else ()
    return _argv(target, ("true",), learned, *modes, *preference, within=connect_timeout)


def check_key_argv(target: Target) -> tuple[str, ...]:
    """Exits 0 where the private key is whole and has no passphrase."""
    return ("ssh-keygen", "-y", "-P", "", "-f", str(target.private_key.absolute()))


def ssh_environment() -> dict[str, str]:
    """What ssh needs of our environment, and no more: the agent holds keys that have a passphrase."""
    wanted = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "SSH_AUTH_SOCK")
    return {name: os.environ[name] for name in wanted if name in os.environ} | {"LC_ALL": "C"}


_SILENT = ("BatchMode=yes", "RequestTTY=no")
_ALGORITHMS = {
    "ssh-ed25519": "ssh-ed25519",
    "ecdsa-sha2-nistp256": "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384": "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521": "ecdsa-sha2-nistp521",
    "ssh-rsa": "rsa-sha2-512,rsa-sha2-256",
}


def _argv(target: Target, command: tuple[str, ...], known_hosts: Path, *further: str, within: float) -> tuple[str, ...]:
    options = (
        f"IdentityFile={_quoted(target.private_key)}",  # with -i a path that needs expanding is not found
        "IdentitiesOnly=yes",
        "PasswordAuthentication=no",
        "KbdInteractiveAuthentication=no",
        f"UserKnownHostsFile={_quoted(known_hosts)}",
        "GlobalKnownHostsFile=/dev/null",
        "CheckHostIP=no",
        "HashKnownHosts=no",
        "UpdateHostKeys=no",
        f"ConnectTimeout={max(1, round(within))}",
        "ServerAliveInterval=5",
        "ServerAliveCountMax=3",
        "LogLevel=ERROR",
        *further,
    )
    # No configuration file is read (-F none): the same command must do the same on every computer.
    login = ("ssh", "-F", "none", "-p", str(target.port), "-l", target.user)
    return (*login, *(word for option in options for word in ("-o", option)), "--", target.address, *command)


def _quoted(path: Path) -> str:
    """A path as one word of a configuration line, which is what -o takes; the same after ssh has expanded it."""
    text = str(path.absolute())
    if "${" in text or not text.isprintable():
        raise StepFailed(
            "ssh cannot use files in this directory",
            kind=FailureKind.INPUT,
            detail=f"{text!r}: ssh would expand ${{...}} and cannot be told of control characters",
            help="use a directory without such characters in its name",
        )
    return '"' + text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'
