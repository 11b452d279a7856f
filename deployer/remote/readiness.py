"""Waits until hosts let us in, and until cloud-init is over; says which rung of the ladder held them up, and why."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from deployer.errors import FailureKind, StepFailed
from deployer.events import Report
from deployer.process import Interrupts
from deployer.remote.cloud_init import LOG_COMMAND, REPORT_COMMAND, CloudInit, CloudInitOutcome, read_report
from deployer.remote.host import Attempt, Host, Rung
from deployer.remote.ssh import Target
from deployer.remote.waiting import Watch, side_by_side
from deployer.remote.words import excerpt, joined, one_line

T = TypeVar("T")

_QUICK, _SLOW = 0.2, 2.0  # seconds between attempts, growing
# Newer sshd shut out who fails to log in too often: five seconds' penalty each time, enforced from fifteen on.
_AFTER_REFUSALS = (0.5, 2.0, 5.0)


def wait_ssh(targets: Sequence[Target], *, limit: float, interrupts: Interrupts, report: Report) -> None:
    """Waits until every target has let us in, side by side, for `limit` seconds at most.

    Raises StepFailed: unreachable or authentication where a host did not get further in time, input for a private key
    that cannot be used, authentication at once for a host key that has changed. Raises Interrupted, ToolMissing.
    """

    def judge(attempt: Attempt) -> tuple[str, bool | None]:
        return attempt.answer, True if attempt.done else None

    with tempfile.TemporaryDirectory(prefix="deployer-ssh-") as scratch:

        def work(watch: Watch) -> bool:
            host = Host(watch.target, scratch=Path(scratch), halt=watch.halt)
            host.check_key()
            return _persist(watch, host, "true", Rung.AUTHENTICATE, judge)

        doing = "waiting for SSH"
        side_by_side(targets, work, limit=limit, doing=doing, interrupts=interrupts, report=report)


def wait_cloud_init(
    targets: Sequence[Target],
    *,
    limit: float,
    strict: bool,
    required: bool,
    interrupts: Interrupts,
    report: Report,
) -> dict[str, CloudInit]:
    """Waits until cloud-init is over on every target, reboots included, and returns what became of it, by name.

    Raises StepFailed: cloud_init for an error, for a degraded end where `strict`, and where it is absent or disabled
    though `required`; timeout, unreachable or authentication where it was not over in time. Raises Interrupted.
    """
    with tempfile.TemporaryDirectory(prefix="deployer-ssh-") as scratch:

        def work(watch: Watch) -> CloudInit:
            host = Host(watch.target, scratch=Path(scratch), halt=watch.halt)
            boots: list[str] = []

            def judge(attempt: Attempt) -> tuple[str, CloudInit | None]:
                found = read_report(attempt.output)
                if found.boot_id and found.boot_id not in boots:
                    boots.append(found.boot_id)
                    if len(boots) > 1:
                        watch.notice(f"{watch.target.name} rebooted")
                if not attempt.done:
                    return attempt.answer, None
                return found.answer, None if found.outcome is CloudInitOutcome.RUNNING else found

            end = _persist(watch, host, REPORT_COMMAND, Rung.CLOUD_INIT, judge)
            _accept(watch, host, end, strict=strict, required=required)
            return end

        doing = "waiting for cloud-init"
        return side_by_side(targets, work, limit=limit, doing=doing, interrupts=interrupts, report=report)


def _persist(watch: Watch, host: Host, command: str, top: Rung, judge: Callable[[Attempt], tuple[str, T | None]]) -> T:
    """Attempts until `judge`, who gives the answer to tell, also gives an end; StepFailed where none comes in time."""
    pause, refusals = _QUICK, 0
    reached: tuple[Attempt, str, float] | None = None  # the last attempt, its answer, and since when it is on its rung
    while True:
        attempt = host.attempt(command, top=top, left=watch.left)
        answer, end = judge(attempt)
        watch.tell(attempt.rung, answer)
        if end is not None:
            return end
        # An attempt that the limit cut short knows less than the one before.
        if reached is None or watch.left > 0 or attempt.done or attempt.kind is not FailureKind.TIMEOUT:
            since = watch.spent
            if reached is not None and attempt.rung is reached[0].rung:
                since = reached[2]
            else:
                pause = _QUICK
            reached = (attempt, answer, since)
        if watch.left <= 0:
            raise _expired(watch, host, *reached)
        if attempt.kind is FailureKind.AUTHENTICATION:
            wait = _AFTER_REFUSALS[min(refusals, len(_AFTER_REFUSALS) - 1)]
            refusals += 1
        else:
            wait = pause = min(_SLOW, pause * 1.3)
        watch.halt.sleep(max(0.05, min(wait, watch.left)), "waiting")


def _expired(watch: Watch, host: Host, attempt: Attempt, answer: str, rung_since: float) -> StepFailed:
    silent = attempt.kind is FailureKind.TIMEOUT
    target, where = watch.target, one_line(f"{watch.target.address}:{watch.target.port}")
    message = {
        Rung.CONNECT: f"{target.name} does not accept connections at {where}",
        Rung.BANNER: f"{target.name} accepts connections at {where} but does not answer as an SSH server",
        Rung.AUTHENTICATE: f"{target.name} answers at {where} but does not "
        + ("finish the login" if silent else f"let {target.user} in"),
        Rung.CLOUD_INIT: f"cloud-init on {target.name} was not over in time",
    }[attempt.rung]
    mend = {
        Rung.AUTHENTICATE: f"{target.user} must exist and accept {target.private_key}.pub; "
        "on a machine that cloud-init sets up, see whether it got its user data",
    }.get(attempt.rung, "")
    log = host.read(LOG_COMMAND) if attempt.rung is Rung.CLOUD_INIT else ""
    return StepFailed(
        message,
        kind=attempt.kind,
        detail=f"rung {attempt.rung} for {max(0.0, watch.spent - rung_since):.0f} s, limit {watch.limit:.0f} s; "
        f"last answer: {answer or 'none'}",
        help=mend,
        excerpt=excerpt(log or target.last_words()),
    )


def _accept(watch: Watch, host: Host, end: CloudInit, *, strict: bool, required: bool) -> None:
    """Raises StepFailed (cloud_init) where that end will not do; says what the user should know where it will."""
    name, causes = watch.target.name, joined(end.causes)

    def failure(message: str, detail: str, help: str = "") -> StepFailed:
        log = host.read(LOG_COMMAND) or watch.target.last_words()
        return StepFailed(
            message, kind=FailureKind.CLOUD_INIT, detail=detail, help=help, excerpt=excerpt(log)
        )  # fmt: skip

    match end.outcome:
        case CloudInitOutcome.ERROR:
            raise failure(f"cloud-init failed on {name}", causes)
        case CloudInitOutcome.DEGRADED if strict:
            raise failure(f"cloud-init on {name} ended degraded", causes)
        case CloudInitOutcome.DEGRADED:
            watch.notice(f"cloud-init on {name} is done, but degraded: {causes}", "warning")
        case CloudInitOutcome.DISABLED | CloudInitOutcome.ABSENT if required:
            what = "is disabled" if end.outcome is CloudInitOutcome.DISABLED else "is not installed"
            raise failure(
                f"cloud-init {what} on {name}",
                "the machine's user data was never applied",
                "use an image with cloud-init, or say `cloud_init: false` in the configuration file",
            )
        case CloudInitOutcome.DISABLED | CloudInitOutcome.ABSENT:
            watch.notice(f"cloud-init is {end.outcome} on {name}: skipped")
        case _:
            pass
