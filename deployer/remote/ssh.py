"""The ssh client: its command lines, whose flags nobody else knows, and the host keys: those pinned, those shown."""

import socket
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deployer.errors import FailureKind, StepFailed
from deployer.events import one_line
from deployer.files import write_atomically
from deployer.process import Context, Outcome, capture

Answering = Literal["nobody", "unknown", "another", "ours"]

CALL = 20.0  # seconds for one call of ssh

_writing = threading.Lock()  # several hosts of one environment are pinned side by side, in one file


@dataclass(frozen=True, kw_only=True)
class Target:
    """A host to log in to, and what with; `console` is a file with what it printed there."""

    name: str
    address: str
    port: int
    user: str
    private_key: Path
    known_hosts: Path
    console: Path | None

    @property
    def known_as(self) -> str:
        return known_as(self.address, self.port)

    @property
    def pinned(self) -> frozenset[str]:
        """The keys that the host must show, if any."""
        return read_keys(self.known_hosts, self.known_as)


def ssh_argv(
    target: Target, *command: str, interactive: bool = False, patience: int = 10, more: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The command line that logs in to `target` and runs `command`, or a shell where there is none.

    As with ssh, the words of `command` are joined by spaces and read by the remote shell. A host whose key is pinned
    must show that key; another one's is learned. Not `interactive`: nothing is ever asked. `patience` is in seconds,
    for connection and banner, `more` are options. Raises StepFailed where known_hosts cannot be read, or a path cannot
    be told to ssh.
    """
    options = (
        f"IdentityFile={_quoted(target.private_key)}",  # with -i a path that needs expanding is not found
        "IdentitiesOnly=yes",
        f"UserKnownHostsFile={_quoted(target.known_hosts)}",
        # accept-new alone would also take a key of another type for a host that is pinned already.
        f"StrictHostKeyChecking={'yes' if target.pinned else 'accept-new'}",
        f"User={target.user}",
        f"ConnectTimeout={patience}",
        *(() if interactive else ("BatchMode=yes", "RequestTTY=no")),
        *more,
        "PasswordAuthentication=no",
        "KbdInteractiveAuthentication=no",
        "GlobalKnownHostsFile=/dev/null",
        "ServerAliveInterval=5",
        "LogLevel=ERROR",
    )
    words = (word for option in options for word in ("-o", option))
    # No configuration file is read (-F none): the same command must do the same on every computer.
    return ("ssh", "-F", "none", "-p", str(target.port), *words, "--", target.address, *command)


def host_key_argv(target: Target, learned: Path) -> tuple[str, ...]:
    """Has what answers there prove its host key, which ssh writes to `learned`; offers it no key of ours.

    Not ssh-keyscan: that asks for each type on a connection of its own, and where one of them breaks the others look
    like the keys of another machine.
    """
    # Without a preference for the type that is pinned, a host with several keys would show another one.
    kinds = ",".join(sorted({key.split()[0] for key in target.pinned})).replace("ssh-rsa", "rsa-sha2-512,rsa-sha2-256")
    more = ("PubkeyAuthentication=no", *((f"HostKeyAlgorithms=^{kinds}",) if kinds else ()))
    keyless = replace(target, known_hosts=learned, private_key=Path("/dev/null"))
    return ssh_argv(keyless, "true", more=more)


def _quoted(path: Path) -> str:
    """A path as one word of a configuration line, which is what -o takes; the same after ssh has expanded it."""
    text = str(path.absolute())
    if "${" in text or not text.isprintable():
        detail = f"{text!r}: ssh would expand ${{...}} and cannot be told of control characters"
        raise StepFailed("ssh cannot use files in this directory", kind=FailureKind.INPUT, detail=detail)
    return '"' + text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"') + '"'


def who_answers(target: Target, context: Context, learned: Path | None = None) -> tuple[Answering, str]:
    """Who answers there, and why it is not the machine whose key is pinned, if it is not. Raises Interrupted.

    `learned` is what a first contact has just written: then nobody is asked for a key once more.
    """
    try:
        socket.create_connection((target.address, target.port), timeout=3.0).close()  # seconds to be taken
    except (OSError, UnicodeError, OverflowError) as error:  # the latter two: what is no address or port at all
        return "nobody", one_line(getattr(error, "strerror", None) or str(error))
    pinned = target.pinned
    with tempfile.TemporaryDirectory(prefix="deployer-ssh-") as scratch:
        if learned is None:
            learned = Path(scratch) / "known_hosts"
            ask(target, host_key_argv(target, learned), CALL, context)
        shown = read_keys(learned, target.known_as)
    if not shown:  # a forwarded port is open while the machine behind it boots
        return "unknown", "the port is open, but nothing more"
    return ("another", "it shows another host key") if pinned and not pinned & shown else ("ours", "")


def ask(target: Target, argv: tuple[str, ...], limit: float, context: Context) -> tuple[Outcome, str]:
    """Runs a command line of ssh for `limit` seconds at most; what it wrote is the answer. Raises Interrupted."""
    return capture(argv, f"asking {target.name}", limit, context, LC_ALL="C")


def known_as(address: str, port: int) -> str:
    """The name ssh gives a host in known_hosts: a numeric address in its shortest form, anything else in lower case."""
    with suppress(OSError, UnicodeError, OverflowError):  # it is a name, or no address at all
        numeric = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
        address, _ = socket.getnameinfo(numeric, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    return address.lower() if port == 22 else f"[{address.lower()}]:{port}"


def read_keys(known_hosts: Path, name: str) -> frozenset[str]:
    """The keys ("type base64") in the file for that name; none where there is no file. Raises StepFailed (storage)."""
    return frozenset(" ".join(line.split()[1:3]) for line in _lines(known_hosts) if _is_about(line, name))


def pin(known_hosts: Path, learned: Path) -> None:
    """Appends the lines of `learned`, as ssh wrote them. Raises StepFailed (storage), OSError."""
    with _writing:
        _write(known_hosts, [*_lines(known_hosts), *_lines(learned)])


def forget_host_key(known_hosts: Path, address: str, port: int) -> None:
    """Unpins a host that was replaced on purpose. Raises StepFailed (storage), OSError."""
    name = known_as(address, port)
    if read_keys(known_hosts, name):
        _write(known_hosts, [line for line in _lines(known_hosts) if not _is_about(line, name)])


def _is_about(line: str, name: str) -> bool:
    names, *key = line.split() or [""]
    return len(key) >= 2 and name in names.split(",")  # neither comments nor @revoked have the name in front


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problem, detail = "the host keys of the environment cannot be kept", f"{path}: {error.strerror}"
        raise StepFailed(problem, kind=FailureKind.STORAGE, detail=detail) from error


def _write(path: Path, lines: list[str]) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
