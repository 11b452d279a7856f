"""Waits side by side until hosts let us in, and until cloud-init is over: attempt by attempt, up a ladder of rungs."""

import os
import resource
import shlex
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from deployer.errors import FailureKind, StepFailed
from deployer.events import HostProgress, Notice, one_line, printable
from deployer.process import Context, Deadline, Interrupts
from deployer.remote.cloud_init import LOG_COMMAND, REPORT_COMMAND, CloudInit, CloudInitOutcome, read_report
from deployer.remote.ssh import CALL, Target, ask, pin, ssh_argv, who_answers

Rung = Literal["connect", "banner", "authenticate", "cloud_init"]

_PAUSE = 0.4  # seconds between attempts
_CONSOLE_END = 4096  # bytes
_FILES = 8  # that are open at most for an attempt
_HELD_UP: dict[Rung, tuple[FailureKind, str]] = {
    "connect": (FailureKind.UNREACHABLE, "{0.name} does not accept connections at {1}"),
    "banner": (FailureKind.UNREACHABLE, "{0.name} accepts connections at {1} but does not answer as an SSH server"),
    "authenticate": (FailureKind.AUTHENTICATION, "{0.name} answers at {1} but does not let {0.user} in"),
    "cloud_init": (FailureKind.TIMEOUT, "cloud-init on {0.name} was not over in time"),
}
_ENDED = {"error": "failed", "degraded": "ended degraded", "disabled": "is disabled", "absent": "is not installed"}


def wait_ssh(targets: Sequence[Target], limit: float, context: Context) -> None:
    """Waits until every target has let us in, side by side, for `limit` seconds at most.

    Raises StepFailed: unreachable or authentication where a host did not get further in time, input for a private key
    that cannot be read, authentication at once for a host key that has changed. Raises Interrupted, ToolMissing.
    """

    def work(host: Host) -> None:
        key = host.target.private_key
        if not (key.is_file() and os.access(key, os.R_OK)):  # waiting would not mend it
            raise StepFailed("the private key cannot be used", kind=FailureKind.INPUT, detail=f"{key}: not readable")
        next(host.outputs("true", "authenticate"))
        host.tell("authenticate", "logged in")

    _side_by_side(targets, work, "waiting for SSH", limit, context)


def wait_cloud_init(
    targets: Sequence[Target], limit: float, context: Context, *, strict: bool, required: bool
) -> dict[str, CloudInit]:
    """Waits until cloud-init is over on every target, reboots included, and returns what became of it, by name.

    Raises StepFailed: cloud_init for an error, for a degraded end where `strict`, and where it is absent or disabled
    though `required`; timeout, unreachable or authentication where it was not over in time. Raises Interrupted.
    """
    ends: dict[str, CloudInit] = {}

    def work(host: Host) -> None:
        for output in host.outputs(REPORT_COMMAND, "cloud_init"):
            end = read_report(output)
            host.tell("cloud_init", end.answer)
            if end.outcome is not CloudInitOutcome.RUNNING:
                _accept(host, end, strict=strict, required=required)
                ends[host.target.name] = end
                return

    _side_by_side(targets, work, "waiting for cloud-init", limit, context)
    return ends


class Host:
    """A wait for `target`, in a thread of its own."""

    def __init__(self, target: Target, deadline: Deadline, turns: threading.Semaphore, context: Context) -> None:
        self.target, self.say = target, context.report
        self._deadline, self._turns, self._context = deadline, turns, context
        self._rung: Rung | None = None
        self._answer, self._since = "", 0.0
        self._told = set[str]()  # on this rung

    @property
    def _left(self) -> float:
        return self._deadline.seconds - self._deadline.spent  # Deadline.left is for one thread, which moves the clock

    def outputs(self, command: str, top: Rung) -> Iterator[str]:
        """Runs `command` on the `top` rung again and again, and tells why where it does not get there.

        Raises StepFailed when the time is up, and at once (authentication) where the host shows another key than the
        pinned one; Interrupted where asked to stop.
        """
        pause = _PAUSE
        while True:
            # A first contact goes to a file of its own, and the key is pinned by the first login that succeeds: until
            # then nobody has shown to be the machine we made, and some machines make their keys anew while they boot.
            with self._turns, tempfile.TemporaryDirectory(prefix="deployer-ssh-") as scratch:
                self._context.interrupts.check("waiting")
                output = self._log_in(command, top, Path(scratch) / "known_hosts")
            if output is not None:
                yield output
            if self._left <= 0:
                with self._turns:
                    raise self._expired()
            # Newer sshd shut out who fails often: five seconds' penalty each time, enforced from fifteen on.
            pause = min(5.0, pause * 3) if self._rung == "authenticate" else _PAUSE
            self._context.interrupts.sleep(max(0.05, min(pause, self._left)), "waiting")

    def tell(self, rung: Rung, answer: str) -> None:
        """Reports where the host is, if that is new: a machine that boots breaks connections in turn in two ways.
        Raises Interrupted where nobody waits for it any more."""
        self._context.interrupts.check("waiting")
        spent = self._deadline.spent
        if rung != self._rung:
            self._since, self._told = spent, set()
        if answer not in self._told:
            self.say(HostProgress(host=self.target.name, rung=rung, answer=answer, seconds=round(spent, 1)))
        self._told.add(answer)
        self._rung, self._answer = rung, answer

    def last_words(self) -> str:
        """The end of cloud-init's log where we were let in, else of the console's."""
        target, log = self.target, ""
        if self._rung == "cloud_init":
            _, log = ask(target, ssh_argv(target, LOG_COMMAND), CALL / 2, self._context)
        if not log and target.console:
            with suppress(OSError):
                log = target.console.read_bytes()[-_CONSOLE_END:].decode("utf-8", errors="replace")
        return excerpt(log)

    def _expired(self) -> StepFailed:
        target, (kind, message) = self.target, _HELD_UP[self._rung or "connect"]
        spent, limit = self._deadline.spent - self._since, self._deadline.seconds
        detail = f"at {self._rung} for {spent:.0f} s, limit {limit:.0f} s; last answer: {self._answer or 'none'}"
        if kind is FailureKind.AUTHENTICATION:
            detail += f"; '{target.user}' must exist and accept {target.private_key}.pub: did the user data arrive?"
        problem = message.format(target, one_line(f"{target.address}:{target.port}"))
        return StepFailed(problem, kind=kind, detail=detail, excerpt=self.last_words())

    def _log_in(self, command: str, top: Rung, learned: Path) -> str | None:
        """What the command wrote, where it ran to its good end; else tells what held it up."""
        target, pinned = self.target, self.target.pinned
        # Who has answered gets ten seconds; a forwarder that swallowed us gets a new try soon. Each time it is longer:
        # an emulated machine on a busy computer may need half a minute for a login that takes a second elsewhere.
        spent, answers = self._deadline.spent, self._rung in ("authenticate", "cloud_init")
        patience = max(1, round(min((10.0 if answers else 4.0) + spent / 15, 60.0, self._left)))
        limit = min(CALL + spent / 5, max(0.0, self._left) + 1.0)  # ssh itself shall be the first to lose patience
        known = target if pinned else replace(target, known_hosts=learned)
        outcome, output = ask(target, ssh_argv(known, command, patience=patience), limit, self._context)
        said = next((line for text in reversed(outcome.tail) if (line := one_line(text))), "")
        if outcome.timed_out:
            rung, answer = top, f"no answer within {limit:.0f} s"
        elif outcome.returncode == 255:
            rung, answer = self._stopped_at(said, None if pinned else learned)
        else:
            if not pinned:
                pin(target.known_hosts, learned)
            if outcome.returncode == 0:
                return output
            rung, answer = top, f"exit {outcome.returncode} {said}".strip()
        if self._left > 0 or self._rung is None:  # what the limit cut short knows less than what came before
            self.tell(rung, answer)
        return None

    def _stopped_at(self, said: str, learned: Path | None) -> tuple[Rung, str]:
        if self._rung == "authenticate" and said == self._answer:
            return "authenticate", said  # nothing is new, and a newer sshd counts each connection against us
        # ssh exits 255 whatever went wrong, and its sentences are no interface. So the host is asked more simply: for a
        # connection, then for the key it has shown. Another key than the pinned one: that is the cause. No key: the
        # connection broke before that. Otherwise host and connection are fine, and our login was refused.
        who, why = who_answers(self.target, self._context, learned)
        if who == "another":
            name, file = shlex.quote(one_line(self.target.known_as)), shlex.quote(str(self.target.known_hosts))
            raise StepFailed(
                f"{self.target.name} shows another host key than before: another machine, or somebody is in between",
                kind=FailureKind.AUTHENTICATION,
                detail=f"at {name}: not the key that is pinned in {file}",
                help=f"ssh-keygen -R {name} -f {file}    # if the machine was rebuilt on purpose",
            )
        if who == "nobody":
            return "connect", why
        if who == "unknown" and self._rung == "authenticate":
            return "authenticate", self._answer  # it hangs up for a while on who was refused too often
        return "authenticate" if who == "ours" else "banner", said


def excerpt(log: str) -> str:
    """The end of a log as a few printable lines; consoles end theirs with carriage returns."""
    lines = printable(log.replace("\r", "\n")).split("\n")
    return "\n".join([line.rstrip() for line in lines if line.strip()][-30:])


def _accept(host: Host, end: CloudInit, *, strict: bool, required: bool) -> None:
    """Raises StepFailed (cloud_init) where that end will not do; says what the user should know where it will."""
    name, causes = host.target.name, one_line("; ".join(end.causes), 400)
    if end.outcome is CloudInitOutcome.DONE:
        return
    if end.outcome is CloudInitOutcome.ERROR or (strict if causes else required):
        mend = "use an image with cloud-init, or say `cloud_init: false` in the configuration file"
        raise StepFailed(
            f"cloud-init {_ENDED[end.outcome]} on {name}",
            kind=FailureKind.CLOUD_INIT,
            detail=causes or "the machine's user data was never applied",
            help="" if causes else mend,
            excerpt=host.last_words(),
        )
    if causes:
        host.say(Notice(message=f"cloud-init on {name} is done, but degraded: {causes}", level="warning"))
    else:
        host.say(Notice(message=f"cloud-init is {end.outcome} on {name}: skipped"))


def _side_by_side(
    targets: Sequence[Target], work: Callable[[Host], None], doing: str, limit: float, context: Context
) -> None:
    """Runs `work` for each target in a thread of its own, which reports what it finds. The first failure ends all the
    waiting and is raised."""
    deadline, halt = Deadline(limit), Interrupts()
    # Of many hosts so many are asked at once as we may have files open; each gets its turn, as a pause follows it.
    room = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64) // _FILES
    turns = threading.Semaphore(max(4, min(100, room)))
    theirs = replace(context, interrupts=halt)
    failures: list[BaseException] = []

    def live(target: Target) -> None:
        try:
            work(Host(target, deadline, turns, theirs))
        except BaseException as failure:  # noqa: BLE001 - raised by the waiting thread, if it is the first
            failures.append(failure)

    # Daemons, because a name that is being resolved cannot be interrupted and must not keep the process.
    threads = [threading.Thread(target=live, args=(t,), name=f"wait-{t.name}", daemon=True) for t in targets]
    for thread in threads:
        thread.start()
    try:
        while any(t.is_alive() for t in threads) and not failures:
            _ = deadline.left  # moves the clock
            context.interrupts.sleep(0.1, doing)
    finally:
        halt.request()
        end = time.monotonic() + 1.0  # a second for all of them to leave
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
    if failures:
        raise failures[0]
