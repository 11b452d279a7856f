"""One host, attempt by attempt: how far up the ladder it lets us, and what held it up. Knows no other host."""

import os
import shlex
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from deployer.errors import FailureKind, StepFailed
from deployer.events import Event, HostProgress, one_line, printable
from deployer.process import Deadline, Interrupts, Outcome
from deployer.remote.cloud_init import LOG_COMMAND
from deployer.remote.ssh import CALL, Target, ask, pin, ssh_argv, who_answers

Rung = Literal["connect", "banner", "authenticate", "cloud_init"]

_PAUSE = 0.4  # seconds between attempts
_HELD_UP: dict[Rung, tuple[FailureKind, str]] = {
    "connect": (FailureKind.UNREACHABLE, "{0.name} does not accept connections at {1}"),
    "banner": (FailureKind.UNREACHABLE, "{0.name} accepts connections at {1} but does not answer as an SSH server"),
    "authenticate": (FailureKind.AUTHENTICATION, "{0.name} answers at {1} but does not let {0.user} in"),
    "cloud_init": (FailureKind.TIMEOUT, "cloud-init on {0.name} was not over in time"),
}


@dataclass(frozen=True)
class _Attempt:
    """The rung an attempt stopped at, and what was heard there; `output` where the command ran to its end."""

    rung: Rung
    answer: str = ""
    output: str | None = None


class Host:
    """A wait for `target`, in a thread of its own; `halt` ends it at once, `say` takes the events."""

    def __init__(self, target: Target, deadline: Deadline, halt: Interrupts, say: Callable[[Event], None]) -> None:
        self.target, self.say = target, say
        self._deadline, self._halt = deadline, halt
        self._rung: Rung | None = None
        self._answer, self._since = "", 0.0

    @property
    def _left(self) -> float:
        return self._deadline.seconds - self._deadline.spent  # Deadline.left is for one thread, which moves the clock

    def outputs(self, command: str, top: Rung) -> Iterator[str]:
        """Runs `command` on the `top` rung again and again, and tells why where it does not get there.

        Raises StepFailed when the time is up, and at once (authentication) where the host shows another key than the
        pinned one; Interrupted on halt.
        """
        pause = _PAUSE
        while True:
            # A first contact goes to a file of its own, and the key is pinned by the first login that succeeds: until
            # then nobody has shown to be the machine we made, and some machines make their keys anew while they boot.
            with tempfile.TemporaryDirectory(prefix="deployer-ssh-") as scratch:
                attempt = self._log_in(command, top, Path(scratch) / "known_hosts")
            if attempt.output is not None:
                yield attempt.output
            elif self._left > 0 or self._rung is None:  # what the limit cut short knows less than what came before
                self.tell(attempt.rung, attempt.answer)
            if self._left <= 0:
                raise self._expired()
            # Newer sshd shut out who fails often: five seconds' penalty each time, enforced from fifteen on.
            pause = min(5.0, pause * 3) if attempt.rung == "authenticate" else _PAUSE
            self._halt.sleep(max(0.05, min(pause, self._left)), "waiting")

    def tell(self, rung: Rung, answer: str) -> None:
        """Reports where the host is, if that is new."""
        spent = self._deadline.spent
        if (rung, answer) != (self._rung, self._answer):
            self.say(HostProgress(host=self.target.name, rung=rung, answer=answer, seconds=round(spent, 1)))
        self._since = self._since if rung == self._rung else spent
        self._rung, self._answer = rung, answer

    def last_words(self) -> str:
        """The end of cloud-init's log where we were let in, else of the console's."""
        log = self._ask(ssh_argv(self.target, LOG_COMMAND), CALL / 2)[1] if self._rung == "cloud_init" else ""
        return excerpt(log or self.target.last_words())

    def _expired(self) -> StepFailed:
        target, (kind, message) = self.target, _HELD_UP[self._rung or "connect"]
        spent, limit = self._deadline.spent - self._since, self._deadline.seconds
        refused = f"{target.user} must exist and accept {target.private_key}.pub; did the machine get its user data?"
        return StepFailed(
            message.format(target, one_line(f"{target.address}:{target.port}")),
            kind=kind,
            detail=f"rung {self._rung} for {spent:.0f} s, limit {limit:.0f} s; last answer: {self._answer or 'none'}",
            help=refused if kind is FailureKind.AUTHENTICATION else "",
            excerpt=self.last_words(),
        )

    def _log_in(self, command: str, top: Rung, learned: Path) -> _Attempt:
        target, pinned = self.target, self.target.pinned
        # Who has answered gets ten seconds, and who is slow to come longer each time; but a forwarder that swallowed us
        # gets a new try soon.
        answers = self._rung in ("authenticate", "cloud_init")
        patience = max(1, round(min(10.0 if answers else 4.0 + self._deadline.spent / 15, 12.0, self._left)))
        limit = min(CALL, max(0.0, self._left) + 1.0)  # ssh itself shall be the first to lose patience
        known = target if pinned else replace(target, known_hosts=learned)
        outcome, output = self._ask(ssh_argv(known, command, patience=patience), limit)
        if outcome.timed_out:
            return _Attempt(top, f"no answer within {limit:.0f} s")
        said = next((line for text in reversed(outcome.tail) if (line := one_line(text))), "")
        if outcome.returncode != 255:
            if not pinned:
                pin(target.known_hosts, learned)
            done = outcome.returncode == 0
            return _Attempt(top, f"exit {outcome.returncode} {said}".strip(), output if done else None)
        # ssh exits 255 whatever went wrong, and its sentences are no interface. So the host is asked more simply: for a
        # connection, then for the key it has shown. Another key than the pinned one: that is the cause. No key: the
        # connection broke before that. Otherwise host and connection are fine, and our login was refused.
        where, shown_to = (target.known_hosts, target.address, target.port), None if pinned else learned
        who, why = who_answers(*where, learned=shown_to, environ=os.environ, interrupts=self._halt)
        if who == "nobody":
            return _Attempt("connect", why)
        if who == "another":
            name, file = shlex.quote(one_line(target.known_as)), shlex.quote(str(target.known_hosts))
            raise StepFailed(
                f"{target.name} shows another host key than before: it is another machine, or somebody is in between",
                kind=FailureKind.AUTHENTICATION,
                detail=f"at {name}: not the key that is pinned in {file}",
                help=f"if the machine was rebuilt on purpose: ssh-keygen -R {name} -f {file}",
            )
        return _Attempt("authenticate" if who == "ours" else "banner", said)

    def _ask(self, argv: tuple[str, ...], limit: float) -> tuple[Outcome, str]:
        return ask(argv, f"asking {self.target.name}", limit, environ=os.environ, interrupts=self._halt)


def excerpt(log: str) -> str:
    """The end of a log as a few printable lines; consoles end theirs with carriage returns."""
    lines = printable(log.replace("\r", "\n")).split("\n")
    return "\n".join([line.rstrip() for line in lines if line.strip()][-30:])
