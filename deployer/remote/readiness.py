"""Waits side by side until hosts let us in, and until cloud-init is over. Knows not how a host is asked."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.events import Event, Notice, Report, one_line
from deployer.process import Deadline, Interrupts
from deployer.remote.cloud_init import REPORT_COMMAND, CloudInit, CloudInitOutcome, read_report
from deployer.remote.host import Host
from deployer.remote.ssh import Target

T = TypeVar("T")

_ENDED = {"error": "failed", "degraded": "ended degraded", "disabled": "is disabled", "absent": "is not installed"}
_LEAVING = 1.0  # seconds for threads to leave


def wait_ssh(targets: Sequence[Target], *, limit: float, interrupts: Interrupts, report: Report) -> None:
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

    _side_by_side(targets, work, "waiting for SSH", limit, interrupts, report)


def wait_cloud_init(
    targets: Sequence[Target], *, limit: float, strict: bool, required: bool, interrupts: Interrupts, report: Report
) -> dict[str, CloudInit]:
    """Waits until cloud-init is over on every target, reboots included, and returns what became of it, by name.

    Raises StepFailed: cloud_init for an error, for a degraded end where `strict`, and where it is absent or disabled
    though `required`; timeout, unreachable or authentication where it was not over in time. Raises Interrupted.
    """

    def work(host: Host) -> CloudInit:
        for output in host.outputs(REPORT_COMMAND, "cloud_init"):
            found = read_report(output)
            host.tell("cloud_init", found.answer)
            if found.outcome is not CloudInitOutcome.RUNNING:
                _accept(host, found, strict=strict, required=required)
                return found
        raise AssertionError("outputs end by an exception")

    return _side_by_side(targets, work, "waiting for cloud-init", limit, interrupts, report)


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
    targets: Sequence[Target],
    work: Callable[[Host], T],
    doing: str,
    limit: float,
    interrupts: Interrupts,
    report: Report,
) -> dict[str, T]:
    """Runs `work` for each target in a thread of its own, and reports from this one what those say.

    The first failure ends all the waiting and is raised.
    """
    deadline, halt, said = Deadline(limit), Interrupts(), queue.SimpleQueue[Event]()
    results: dict[str, T] = {}
    failures: list[BaseException] = []

    def live(target: Target) -> None:
        try:
            results[target.name] = work(Host(target, deadline, halt, said.put))
        except Interrupted:
            pass  # by `halt`: the waiting thread knows why
        except BaseException as failure:  # noqa: BLE001 - raised by the waiting thread
            failures.append(failure)

    # Daemons, because a name that is being resolved cannot be interrupted and must not keep the process.
    threads = [threading.Thread(target=live, args=(t,), name=f"wait-{t.name}", daemon=True) for t in targets]
    for thread in threads:
        thread.start()
    try:
        while (any(t.is_alive() for t in threads) and not failures) or not said.empty():
            interrupts.check(doing)
            _ = deadline.left  # moves the clock
            with suppress(queue.Empty):
                report(said.get(timeout=0.1))
    finally:
        halt.request()
        end = time.monotonic() + _LEAVING
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
    if failures:
        raise failures[0]
    return results
