"""One run of a command on one environment: every step boundary saved before anything else happens, and told after.

Refuses to know what the steps do.
"""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from deployer import events
from deployer.environment import AnyEnvironment, Configuring, Destroying, Failed, Failure, InProgress, Provisioning
from deployer.errors import DeployerError, FailureKind, Interrupted, StepFailed, StorageFailed
from deployer.events import one_line, utc_now
from deployer.process import Context
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.repository import HeldEnvironment
from deployer.tofu.binary import typed
from deployer.workflows.advice import again, next_commands, what_exists, write_recovery

P = TypeVar("P", Provisioning, Configuring, Destroying)
F = TypeVar("F", bound=AnyEnvironment)
Step = Callable[[], str | None]  # does its part, and says in a few words what came of it

log = logging.getLogger("deployer")
log.addHandler(logging.NullHandler())  # or a program that has set up nothing would see some of it on stderr


@dataclass(frozen=True)
class Session:
    """What a command works with: the held environment, its folder, the run's readable log, and all that work needs."""

    command: str  # as it was typed: `up` provisions and configures
    held: HeldEnvironment
    folder: EnvironmentFolder
    run_id: str
    log: Path
    context: Context

    def keep(self, environment: F, before: AnyEnvironment | None) -> F:
        """Saves a transition or step boundary. Then it is a fact, and told: to the lock's record, the log, the reports.

        Raises StorageFailed, with nothing told.
        """
        self.held.save(environment)
        step = (environment.progress.step or "") if isinstance(environment, InProgress) else ""
        self.held.at_step(step)
        fields: dict[str, Any] = {
            "environment": environment.name, "from_state": before.state if before else "",
            "to_state": environment.state, "step": step, "run_id": self.run_id, "pid": os.getpid(),
        }  # fmt: skip
        said = " ".join(f"{name}={value}" for name, value in fields.items())
        log.info("%s saved: %s", utc_now().isoformat(timespec="milliseconds"), said, extra=fields)
        self.context.report(events.Transition(**fields))
        return environment


class Run(Generic[P]):
    """A command in progress. `environment` is what is saved at this instant, or is about to be at the very start."""

    def __init__(self, session: Session, before: AnyEnvironment, environment: P) -> None:
        self.session = session
        self.environment: P = environment
        self.steps: tuple[str, ...] = ()
        self._command = environment.progress.command
        self._log = str(session.log)
        self._report = session.context.report
        self._saved = before
        self._unsaved: StorageFailed | None = None
        self._started = self._step_started = time.monotonic()

    def _step(self, name: str, action: Step) -> None:
        """Does a step: saved before it starts and after it ends. Interrupted between two steps."""
        self.session.context.interrupts.check(name)
        self._step_started = time.monotonic()
        self.learn(self.environment.begin(name, utc_now()))
        self._report(events.StepStarted(step=name, number=self.steps.index(name) + 1, total=len(self.steps)))
        note = action() or ""
        self.learn(self.environment.end(utc_now()))
        self._report(events.StepFinished(step=name, seconds=_since(self._step_started), note=note))

    def learn(self, environment: AnyEnvironment, after: str = "") -> None:
        """Keeps a fact at the moment it is learned. Raises StorageFailed, which ends the run: `after` says what went
        wrong before that."""
        try:
            self._saved = self.session.keep(environment, self._saved)
        except StorageFailed as error:
            self._unsaved = error
            self._explain_unsaved(error, after)
            raise
        if isinstance(environment, type(self.environment)):
            self.environment = environment

    def conclude(self, steps: Mapping[str, Step], succeed: Callable[[P, datetime], F]) -> F:
        """Does the steps that no earlier run has finished, saves how it ended, and raises what went wrong with all a
        person needs to know. Where even the first save fails, nothing has been done."""
        self.steps = tuple(steps)
        try:
            self.learn(self.environment)
            left, pid = self._left(), os.getpid()
            self._report(events.RunStarted(command=self._command, pid=pid, log=self._log, steps=left))
            for name in left:
                self._step(name, steps[name])
            final = succeed(self.environment, utc_now())
            self.learn(final)
        except Interrupted as error:
            self._explain_interrupt(error)
            raise
        except DeployerError as error:
            if error is not self._unsaved:
                self._fail(error)
            raise
        except OSError as error:
            refused = StepFailed("the disk or the system refused", kind=FailureKind.STORAGE, detail=str(error))
            self._fail(refused)
            raise refused from error
        except Exception as error:
            defect = f"a defect of deployer: {type(error).__name__}"
            self._fail(StepFailed(defect, kind=FailureKind.INTERNAL, detail=str(error)))
            raise
        self._finished("done")
        return final

    def _explain_interrupt(self, error: Interrupted) -> None:
        name, step = self.environment.name, self.environment.progress.step
        where = f"at {step}" if step else "between two steps"
        error.message = f"environment {name}: {self._command} was interrupted by {error.signum.name} {where}"
        error.remains = f"Its state stays {self.environment.state}. {self._exists()}"
        error.help = f"{again(self.environment, self.session.command)}    # goes on from there"
        self._finished("interrupted", error.message)

    def _fail(self, error: DeployerError) -> None:
        """Saves the failed state, and makes `error` say all there is to say. Raises StorageFailed."""
        step = self.environment.progress.step or (*self._left(), *self.steps[-1:])[0]
        seconds = _since(self._step_started)
        other = FailureKind.STORAGE if isinstance(error, StorageFailed) else FailureKind.TOOL
        kind = error.kind if isinstance(error, StepFailed) else other
        said = str(error)
        cause = one_line(said, 1000)
        event = events.StepFailedEvent(step=step, seconds=seconds, failure=str(kind), cause=cause, log=self._log)
        self._report(event)
        failed: Failed = self.environment.fail(Failure(step=step, kind=kind, cause=cause, at=utc_now(), log=self._log))
        self.learn(failed, after=f"{cause}; and then: ")
        self._finished("failed", cause)
        own = error.remains if isinstance(error, StepFailed) else ""  # of others it is about their command alone
        error.remains = f"Its state is {failed.state}. {self._exists()} {own}".rstrip()
        error.help = error.help or f"{next_commands(failed)[0]}    # when it is mended"
        if isinstance(error, StepFailed):  # others speak for themselves, by their exit codes too
            error.message, error.detail = f"environment {failed.name}: {step} failed", said
            error.step, error.log = step, self._log

    def _explain_unsaved(self, error: StorageFailed, after: str) -> None:
        error.message = f"environment {self.environment.name}: {error.message}"
        error.detail = after + error.detail
        error.remains = f"The state file still says what was saved last. {self._exists()}"
        error.help = f"{again(self.environment, self.session.command)}    # when there is room, or the disk is mended; "
        error.help += f"or take everything away by hand: {self.session.folder.enter_tofu} && tofu destroy"
        self._finished("failed", str(error))

    def _exists(self) -> str:
        return what_exists(self.environment, self.session.folder.tofu)

    def _left(self) -> tuple[str, ...]:
        done = {step.name for step in self.environment.progress.finished}
        return tuple(step for step in self.steps if step not in done)

    def _finished(self, outcome: str, cause: str = "") -> None:
        state, seconds = self._saved.state, _since(self._started)
        self._report(events.RunFinished(command=self._command, outcome=outcome, state=state, seconds=seconds))
        write_recovery(self.session.folder, self._saved, cause, self._log, typed(self.session.context.environ))


def _since(start: float) -> float:
    return round(time.monotonic() - start, 3)
