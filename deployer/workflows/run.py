"""One run of a command on one environment: every step boundary saved before anything else happens, and told after.

Refuses to know what the steps do.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from deployer.environment import AnyEnvironment, Configuring, Destroying, Failed, Failure, Provisioning
from deployer.errors import DeployerError, FailureKind, Interrupted, StepFailed, StorageFailed
from deployer.events import (
    Event,
    Notice,
    Report,
    RunFinished,
    RunStarted,
    StepFailedEvent,
    StepFinished,
    StepStarted,
    Transition,
    printable,
    utc_now,
)
from deployer.process import Interrupts
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.repository import HeldEnvironment
from deployer.workflows.advice import by_hand, next_commands, what_exists
from deployer.workflows.recovery import forget_recovery, write_recovery

P = TypeVar("P", Provisioning, Configuring, Destroying)
F = TypeVar("F", bound=AnyEnvironment)

log = logging.getLogger("deployer")


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a run works with: the held environment, its folder, whom to tell, and the user's wish to stop."""

    held: HeldEnvironment
    folder: EnvironmentFolder
    run_id: str
    log: Path
    report: Report
    interrupts: Interrupts
    environ: Mapping[str, str]


class Run(Generic[P]):
    """A command in progress. `environment` is what is saved at this instant."""

    def __init__(self, session: Session, before: AnyEnvironment | None, environment: P, steps: tuple[str, ...]) -> None:
        self.session = session
        self.environment: P = environment
        self.steps = steps
        self._started = time.monotonic()
        self._step_started = self._started
        self._before = before
        self._final_state = ""

    @property
    def command(self) -> str:
        return self.environment.progress.command

    def report(self, event: Event) -> None:
        """Tells an event, with the environment and the run it belongs to."""
        self.session.report(replace(event, environment=self.environment.name, run_id=self.session.run_id))

    def notice(self, message: str, level: str = "info") -> None:
        self.report(Notice(message=message, level=level))

    def begin(self) -> None:
        """Saves the first in-progress state. Raises StorageFailed, and nothing has been done then."""
        try:
            self._save(self.environment, self._before.state if self._before else "")
        except StorageFailed as error:
            raise self._unsaved(error) from error
        self.report(RunStarted(command=self.command, pid=os.getpid(), log=str(self.session.log), steps=self._left()))

    def step(self, name: str, action: Callable[[], str | None]) -> None:
        """Does a step, unless an earlier run has finished it: saved before it starts and after it ends.

        `action` returns a few words on what came of it. Raises what `action` raises; Interrupted between two steps.
        """
        if name in self.environment.progress.finished_names:
            return
        self.session.interrupts.check(f"before {name}")
        self._step_started = time.monotonic()
        self._save(self.environment.begin(name, utc_now()))
        self.report(StepStarted(step=name, number=self.steps.index(name) + 1, total=len(self.steps)))
        note = action() or ""
        self._save(self.environment.end(utc_now()))
        self.report(StepFinished(step=name, seconds=self._step_seconds(), note=note))

    def learn(self, environment: P) -> None:
        """Saves a fact at the moment it is learned."""
        self._save(environment)

    def conclude(self, story: Callable[[], None], succeed: Callable[[P], F]) -> F:
        """Runs the story to its end: saves how it ended, and raises what went wrong with all a person needs to know."""
        try:
            story()
            final = succeed(self.environment)
            self._save_final(final)
            forget_recovery(self.session.folder)
        except Interrupted as error:
            self._explain_interrupt(error)
            raise
        except StorageFailed as error:
            raise self._unsaved(error) from error
        except DeployerError as error:
            kind = error.kind if isinstance(error, StepFailed) else FailureKind.TOOL
            told = self._failed(error, kind)
            raise told from None if told is error else error
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise self._failed(
                DeployerError("the disk or the system refused", detail=reason), FailureKind.STORAGE
            ) from error
        except Exception as error:
            self._failed(
                DeployerError(f"a defect of deployer: {type(error).__name__}", detail=str(error)), FailureKind.INTERNAL
            )
            raise
        self._finished("done")
        return final

    def _explain_interrupt(self, error: Interrupted) -> None:
        step = self.environment.progress.step
        where = f"at {step}" if step else "between two steps"
        error.message = (
            f"environment {self.environment.name}: {self.command} was interrupted by {error.signum.name} {where}"
        )
        error.remains = f"Its state stays {self.environment.state}. {self._exists()}"
        error.help = f"deployer {self.command} {self.environment.name}    # goes on from there"
        self._finished("interrupted")
        write_recovery(self.session.folder, self.environment, error.message, str(self.session.log))

    def _failed(self, error: DeployerError, kind: FailureKind) -> DeployerError:
        step = self.environment.progress.step or self._left()[0]
        where = str(self.session.log)
        cause = " ".join(printable(str(error)).split())[:1000]
        failure = Failure(step=step, kind=kind, cause=cause, at=utc_now(), log=where)
        self.report(StepFailedEvent(step=step, seconds=self._step_seconds(), failure=str(kind), cause=cause, log=where))
        try:
            failed: Failed = self.environment.fail(failure)
            self._save_final(failed)
        except StorageFailed as unsaved:
            raise self._unsaved(unsaved, after=cause) from error
        self._finished("failed")
        write_recovery(self.session.folder, failed, cause, where)
        return self._told(error, failed, step, kind)

    def _told(self, error: DeployerError, failed: Failed, step: str, kind: FailureKind) -> DeployerError:
        said = error.message if not error.detail else f"{error.message}: {error.detail}"
        remains = f"Its state is {failed.state}. {self._exists()}" + (f" {error.remains}" if error.remains else "")
        help_ = error.help or f"{next_commands(failed)[0]}    # when it is mended; it goes on from {step}"
        if not isinstance(error, StepFailed) and error.exit_code != 1:
            error.remains, error.help = remains, help_
            return error
        return StepFailed(
            f"environment {failed.name}: {step} failed",
            kind=kind,
            detail=said,
            remains=remains,
            help=help_,
            excerpt=getattr(error, "excerpt", ""),
            step=step,
            log=str(self.session.log),
        )

    def _unsaved(self, error: StorageFailed, after: str = "") -> StorageFailed:
        before = f"{after}; and then: " if after else ""
        tofu = self.session.folder.tofu
        self._finished("failed")
        return StorageFailed(
            f"environment {self.environment.name}: {error.message}",
            detail=before + error.detail,
            remains=f"The state file still says what was saved last. {self._exists()}",
            help=f"make room or mend the disk, then: deployer {self.command} {self.environment.name}"
            f"    # or take everything away by hand: {by_hand(tofu)}",
        )

    def _exists(self) -> str:
        return what_exists(self.environment, self.session.folder.tofu)

    def _left(self) -> tuple[str, ...]:
        done = self.environment.progress.finished_names
        return tuple(step for step in self.steps if step not in done) or self.steps[-1:]

    def _step_seconds(self) -> float:
        return round(time.monotonic() - self._step_started, 3)

    def _save(self, environment: P, from_state: str | None = None) -> None:
        before = self.environment.state if from_state is None else from_state
        self.session.held.save(environment)
        self.environment = environment
        step = environment.progress.step or ""
        self.session.held.at_step(step)
        tell_transition(self.session, environment.name, before, environment.state, step)

    def _save_final(self, final: AnyEnvironment) -> None:
        self.session.held.save(final)
        tell_transition(self.session, final.name, self.environment.state, final.state, "")
        self._final_state = final.state

    def _finished(self, outcome: str) -> None:
        self.report(
            RunFinished(
                command=self.command,
                outcome=outcome,
                state=self._final_state or self.environment.state,
                seconds=round(time.monotonic() - self._started, 3),
            )
        )


def tell_transition(session: Session, name: str, before: str, after: str, step: str) -> None:
    """Logs a transition or step boundary at info, and reports it. Called after the save only: it is a fact then."""
    run_id, pid = session.run_id, os.getpid()
    fields = {
        "environment": name, "from_state": before, "to_state": after, "step": step, "run_id": run_id, "pid": pid,
    }  # fmt: skip
    log.info(
        "%s saved: environment=%s from_state=%s to_state=%s step=%s run_id=%s pid=%d",
        utc_now().isoformat(timespec="milliseconds"), name, before, after, step, run_id, pid, extra=fields,
    )  # fmt: skip
    session.report(Transition(environment=name, run_id=run_id, from_state=before, to_state=after, step=step, pid=pid))
