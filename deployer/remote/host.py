"""One host, one attempt at a time: how far up the ladder it lets us. Knows no waiting."""

from __future__ import annotations

import os
import select
import shlex
import socket
import stat
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from deployer.errors import FailureKind, StepFailed
from deployer.process import Interrupts, Outcome, Request, Stream, capture, run
from deployer.remote.host_keys import fingerprint, pin, read_keys
from deployer.remote.ssh import Target, check_key_argv, host_key_argv, learning_argv, ssh_argv, ssh_environment
from deployer.remote.words import joined, one_line

_CALL = 20.0  # seconds for one call of ssh
_CONNECT = 5.0
_MOST_OUTPUT = 512 * 1024  # characters; a report of cloud-init has a few thousand


class Rung(StrEnum):
    CONNECT = "connect"
    BANNER = "banner"
    AUTHENTICATE = "authenticate"
    CLOUD_INIT = "cloud_init"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The rung an attempt stopped at, what was heard there, and of what kind the failure is, should it last.

    `done`: the command ran to its end; `output` is what it printed, perhaps in part.
    """

    rung: Rung
    answer: str
    kind: FailureKind
    output: str = ""
    done: bool = False


class Host:
    """Attempts to run a command on `target`. Files of its own are in `scratch`; `halt` ends an attempt at once."""

    def __init__(self, target: Target, *, scratch: Path, halt: Interrupts) -> None:
        self._target = target
        self._learned = scratch / f"known_hosts.{target.name}"
        self._halt = halt
        self._answers_as_ssh = False
        self._silences = 0

    def check_key(self) -> None:
        """Raises StepFailed (input) where the private key cannot be used: waiting would not mend it."""
        path = self._target.private_key
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise _useless_key(path, "it is not a file")
            path.open("rb").close()
        except OSError as error:
            raise _useless_key(path, str(error.strerror)) from error
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            raise _useless_key(path, "others may read it, so ssh ignores it", f"chmod 600 {shlex.quote(str(path))}")
        outcome, _ = capture(self._request(check_key_argv(self._target), _CALL), interrupts=self._halt)
        self._halt.check("reading a key")
        if outcome.returncode != 0 and "SSH_AUTH_SOCK" not in os.environ:
            raise _useless_key(
                path, "it is damaged, or has a passphrase and no agent is running", f"ssh-add {shlex.quote(str(path))}"
            )

    def attempt(self, command: str, *, top: Rung, left: float) -> Attempt:
        """Climbs as far as it goes within `left` seconds; the command runs on the `top` rung.

        Raises StepFailed (authentication) where the host shows another key than the pinned one, Interrupted on halt.
        """
        if not self._answers_as_ssh:
            refusal = self._knock(left)
            if refusal is not None:
                return refusal
            self._answers_as_ssh = True
        target, limit = self._target, max(1.0, min(_CALL, left))
        pinned = read_keys(target.known_hosts, target.known_as)
        if pinned:
            argv = ssh_argv(target, command, connect_timeout=limit / 2)
        else:
            # A first contact goes to a file of its own, and the key is pinned by the first login that succeeds: until
            # then nobody has shown to be the machine we made, and some machines make their keys anew while they boot.
            self._learned.unlink(missing_ok=True)
            argv = learning_argv(target, command, learned=self._learned, connect_timeout=limit / 2)
        outcome, output = self._call(argv, limit)
        if outcome.timed_out:
            self._answers_as_ssh = False
            return Attempt(rung=top, answer=f"no answer within {limit:.0f} s", kind=FailureKind.TIMEOUT, output=output)
        if outcome.returncode == 255:
            return replace(self._refused(outcome, pinned, left), output=output)
        if not pinned:
            pin(target.known_hosts, self._learned)
        if outcome.returncode != 0:
            answer = f"exit {outcome.returncode} {_last(outcome)}".strip()
            kind = FailureKind.AUTHENTICATION if top is Rung.AUTHENTICATE else FailureKind.TIMEOUT
            return Attempt(rung=top, answer=answer, kind=kind, output=output)
        return Attempt(rung=top, answer="logged in", kind=FailureKind.TIMEOUT, output=output, done=True)

    def read(self, command: str) -> str:
        """What the command printed on a host that let us in; "" where it does not."""
        return self._call(ssh_argv(self._target, command), _CALL / 2)[1]

    def _refused(self, outcome: Outcome, pinned: frozenset[str], left: float) -> Attempt:
        # ssh exits 255 whatever went wrong, and its sentences are no interface. So the client is asked once more to
        # write down the key the host proves to have. Nothing written: the connection broke before that. Another key
        # than the pinned one: that is the cause. Otherwise host and connection are fine, and our login was refused.
        if pinned:
            self._learned.unlink(missing_ok=True)
            argv = host_key_argv(self._target, learned=self._learned, connect_timeout=_CALL / 4)
            self._call(argv, max(1.0, min(_CALL / 2, left)))
        shown = read_keys(self._learned, self._target.known_as)
        if pinned and shown and not shown & pinned:
            raise _changed_key(self._target, pinned, shown)
        if not shown:
            self._answers_as_ssh = False
            return Attempt(rung=Rung.BANNER, answer=_last(outcome), kind=FailureKind.UNREACHABLE)
        return Attempt(rung=Rung.AUTHENTICATE, answer=_last(outcome), kind=FailureKind.AUTHENTICATION)

    def _knock(self, left: float) -> Attempt | None:
        """Connects and reads the banner; None where there is one."""
        target = self._target
        try:
            connection = socket.create_connection((target.address, target.port), timeout=max(1.0, min(_CONNECT, left)))
        except (OSError, UnicodeError, OverflowError) as error:  # the latter two: what is no address or port at all
            answer = one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            return Attempt(rung=Rung.CONNECT, answer=answer, kind=FailureKind.UNREACHABLE)
        with connection:
            # A machine that is slow to answer gets longer each time; a forwarder that swallowed us gets a new try soon.
            silence = self._banner(connection, min(12.0, 4.0 + 2.0 * self._silences, max(1.0, left)))
        if silence is not None:
            return Attempt(rung=Rung.BANNER, answer=silence, kind=FailureKind.UNREACHABLE)
        self._silences = 0
        return None

    def _banner(self, connection: socket.socket, patience: float) -> str | None:
        heard, end = b"", time.monotonic() + patience
        while time.monotonic() < end and len(heard) < 65536:
            self._halt.check("reading a banner")
            if not select.select([connection], [], [], 0.1)[0]:
                continue
            try:
                data = connection.recv(4096)
            except OSError as error:
                return one_line(error.strerror or str(error))
            if not data:
                return "closed without a banner" if not heard else f"closed after {_shown(heard)}"
            heard += data
            if any(line.startswith(b"SSH-") for line in heard.split(b"\n")):
                return None
        self._silences += 1
        return f"no SSH banner but {_shown(heard)}" if heard else f"nothing within {patience:.0f} s"

    def _call(self, argv: tuple[str, ...], limit: float) -> tuple[Outcome, str]:
        lines: list[str] = []
        size = 0

        def keep(stream: Stream, line: str) -> None:
            nonlocal size
            size += len(line) + 1
            if stream == "stdout" and size <= _MOST_OUTPUT:
                lines.append(line)

        outcome = run(self._request(argv, limit), interrupts=self._halt, on_line=keep)
        self._halt.check("a call of ssh")
        return outcome, "\n".join(lines)

    def _request(self, argv: tuple[str, ...], limit: float) -> Request:
        doing, env = f"asking {self._target.name}", ssh_environment()
        return Request(argv=argv, doing=doing, cwd=Path("/"), env=env, timeout=limit, grace=1, kill_after=1)


def _last(outcome: Outcome) -> str:
    return next((line for text in reversed(outcome.tail) if (line := one_line(text))), "")


def _shown(data: bytes) -> str:
    return repr(one_line(data[:200].decode("utf-8", errors="replace"), 60))


def _useless_key(path: Path, why: str, help: str = "") -> StepFailed:
    return StepFailed("the private key cannot be used", kind=FailureKind.INPUT, detail=f"{path}: {why}", help=help)


def _changed_key(target: Target, pinned: frozenset[str], shown: frozenset[str]) -> StepFailed:
    return StepFailed(
        f"{target.name} shows another host key than before: it is another machine, or somebody is in between",
        kind=FailureKind.AUTHENTICATION,
        detail=f"at {one_line(target.known_as)}: pinned {joined(map(fingerprint, sorted(pinned)))}, "
        f"now {joined(map(fingerprint, sorted(shown)))}",
        help=f"if the machine was rebuilt on purpose: ssh-keygen -R {shlex.quote(one_line(target.known_as))} "
        f"-f {shlex.quote(str(target.known_hosts))}",
    )
