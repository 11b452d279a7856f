"""The library's front door: everything the command line does. Prints nothing, exits never, raises our errors."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from deployer.app.reading import Reading
from deployer.environment import (
    AnyEnvironment,
    Configured,
    ConfigureFailed,
    Configuring,
    Created,
    Destroyed,
    DestroyFailed,
    Destroying,
    FinishedStep,
    InProgress,
    Provisioned,
    ProvisionFailed,
    Provisioning,
    create,
)
from deployer.errors import Declined, DeployerError, Interrupted, InvalidInput, StepFailed, WrongState
from deployer.events import Notice, utc_now

if TYPE_CHECKING:
    from deployer.config.loading import LoadedSpec
    from deployer.config.model import Spec
    from deployer.tofu.stream import Plan
    from deployer.workflows.run import Run, Session

P = TypeVar("P", Provisioning, Configuring, Destroying)


@dataclass(frozen=True)
class Changes:
    """What a changed file or a changed reality would bring: lines on the file, and OpenTofu's plan if known."""

    spec: tuple[str, ...]
    plan: Plan | None


Confirm = Callable[[Changes], bool]


class Deployer(Reading):
    """All environments of one home.

    `report` is told every event, possibly from worker threads. `interrupts` carries the wish to stop; without it,
    Ctrl+C raises KeyboardInterrupt as usual. `lock_timeout` is in seconds. The constructor touches no disk.
    """

    def create(self, file: Path) -> Created:
        """A new environment, or a destroyed one anew. Raises InvalidSpec, WrongState."""
        accepted = self._accept(file)
        name = accepted.spec.name
        with self._session(name, "create", new=True) as session:
            before = session.held.load()
            if before is not None and not isinstance(before, Destroyed):
                raise self._wrong(before, "create", f"deployer up {file}    # goes on with it, with this file")
            return self._create(session, before, accepted)

    def provision(
        self, name: str, *, file: Path | None = None, from_start: bool = False, confirm: Confirm | None = None
    ) -> AnyEnvironment:
        """Makes the machines, going on where an earlier run stopped. A settled environment with nothing to change
        stays as it is. `confirm` is asked before what exists is changed. Raises WrongState, StepFailed, Declined."""
        with self._session(name, "provision") as session:
            return self._provision(session, self._held(session), self._accept_for(name, file), from_start, confirm)

    def configure(self, name: str, *, from_start: bool = False) -> AnyEnvironment:
        """Runs the playbooks, going on where an earlier run stopped. Raises WrongState, StepFailed."""
        with self._session(name, "configure") as session:
            return self._configure(session, self._held(session), from_start)

    def up(self, file_or_name: str, *, from_start: bool = False, confirm: Confirm | None = None) -> AnyEnvironment:
        """All that is left to do until the machines are configured. Raises as create, provision and configure do."""
        file = self._file(file_or_name)
        accepted = self._accept(file) if file else None
        name = accepted.spec.name if accepted else file_or_name
        with self._session(name, "up", new=accepted is not None) as session:
            before = session.held.load()
            if accepted is not None and (before is None or isinstance(before, Destroyed)):
                before, accepted = self._create(session, before, accepted), None
            return self._up(session, before or self._held(session), accepted, from_start, confirm)

    def destroy(self, name: str, *, abandon: bool = False) -> Destroyed:
        """Takes everything away. `abandon`: the caller has looked, and nothing exists; OpenTofu is not asked."""
        from deployer.workflows import destroy
        from deployer.workflows.doubt import doubt

        with self._session(name, "destroy") as session:
            before = self._held(session)
            if isinstance(before, Destroyed):
                self._report(Notice(message=f"environment {name} is destroyed already", environment=name))
                return before
            if not abandon and (problem := doubt(session.folder, before)) is not None:
                # Said before anything changes: from here the way out may be to provision, which `destroying` bars.
                problem.remains = f"The environment {name} stays {before.state}, and everything in its place."
                raise problem
            environment = before.start_destroy(session.run_id, utc_now())
            run = self._run(session, before, environment, destroy.STEPS)
            _, spec = self._load(name)
            needed = before.resources != "none" or session.folder.tofu.exists()
            tofu = self._tofu(session.folder, spec, session) if needed and not abandon else None
            run.begin()
            return destroy.destroy(run, tofu, spec, abandon=abandon)

    def plan(self, name: str) -> Plan:
        """What OpenTofu would do now. The environment's state does not change."""
        with self._session(name, "plan") as session:
            environment = self._held(session)
            if isinstance(environment, (Destroyed, Destroying)):
                raise self._wrong(environment, "plan", f"deployer show {name}")
            spec = self._spec(environment)
            return self._preview(session, spec, Path(environment.directory))

    def _up(
        self,
        session: Session,
        before: AnyEnvironment,
        accepted: LoadedSpec | None,
        from_start: bool,
        confirm: Confirm | None,
    ) -> AnyEnvironment:
        changed = accepted is not None and _differs(before, accepted)
        settled = isinstance(before, (Configured, Provisioned, ConfigureFailed, Configuring))
        if not settled or from_start or changed or isinstance(before, Configured):
            after = self._provision(session, before, accepted, from_start, confirm)
            if after is before and isinstance(before, Configured):
                return before
            before = after
        return self._configure(session, before, from_start)

    def _provision(
        self,
        session: Session,
        before: AnyEnvironment,
        accepted: LoadedSpec | None,
        from_start: bool,
        confirm: Confirm | None,
    ) -> AnyEnvironment:
        from deployer.workflows import provision
        from deployer.workflows.advice import next_commands

        if isinstance(before, (Destroyed, Destroying, DestroyFailed)):
            raise self._wrong(before, "provision", next_commands(before)[0])
        if accepted is not None and not _differs(before, accepted):
            accepted = None
        spec = accepted.spec if accepted else self._spec(before)
        directory = accepted.directory if accepted else Path(before.directory)
        tofu = self._tofu(session.folder, spec, session)
        settled = isinstance(before, (Provisioned, Configured, ConfigureFailed))
        if settled or (accepted and before.resources != "none"):
            try:
                changes = self._changes(session, before, accepted, spec, directory)
                nothing = settled and changes.plan is not None and changes.plan.empty and accepted is None
                if nothing and not from_start:
                    message = f"nothing to do: environment {before.name} is as its file and OpenTofu say"
                    self._report(Notice(message=message, environment=before.name))
                    return before
                if confirm is not None and not nothing and not confirm(changes):
                    raise Declined("the changes were not confirmed", help=f"deployer show {before.name}")
            except BaseException:
                if accepted is not None:
                    self._put_back(session, before)
                raise
        resumes = isinstance(before, (Provisioning, ProvisionFailed)) and accepted is None and not from_start
        done = provision.steps_to_keep(_finished(before), spec, directory, session.folder) if resumes else ()
        data = accepted.data if accepted else None
        environment = before.start_provision(session.run_id, utc_now(), spec=data, directory=str(directory), done=done)
        run = self._run(session, before, environment, provision.STEPS)
        run.begin()
        return provision.provision(run, spec, tofu)

    def _configure(self, session: Session, before: AnyEnvironment, from_start: bool) -> Configured:
        from deployer.workflows import configure

        if not isinstance(before, (Provisioned, ConfigureFailed, Configured, Configuring)):
            raise self._wrong(before, "configure", f"deployer up {before.name}")
        spec = self._spec(before)
        resumes = isinstance(before, (Configuring, ConfigureFailed)) and not from_start
        done = configure.steps_to_keep(_finished(before)) if resumes else ()
        environment = before.start_configure(session.run_id, utc_now(), done=done)
        run = self._run(session, before, environment, configure.steps(spec))
        run.begin()
        return configure.configure(run, spec)

    def _changes(
        self, session: Session, before: AnyEnvironment, accepted: LoadedSpec | None, spec: Spec, directory: Path
    ) -> Changes:
        """What would come of it. The tofu folder holds what was asked about then."""
        from deployer.config.diff import spec_changes

        lines = spec_changes(before.spec, accepted.data) if accepted else ()
        try:
            return Changes(lines, self._preview(session, spec, directory))
        except StepFailed as error:
            if not isinstance(before, (ProvisionFailed, Provisioning)):
                raise
            # What failed may well fail here too; it is told in its own step, with all there is to say.
            self._report(Notice(message=f"no plan to show yet: {error}", level="warning", environment=before.name))
            return Changes(lines, None)

    def _preview(self, session: Session, spec: Spec, directory: Path) -> Plan:
        from deployer.storage.folder import storage_failed
        from deployer.workflows.provision import render

        tofu = self._tofu(session.folder, spec, session)
        try:
            # Rendered each time: the user's own module may have changed, and so may what an earlier question left.
            if render(session, spec, directory) or not (tofu.folder / ".terraform").exists():
                tofu.init()
                tofu.validate()
            return tofu.plan(lock=False)
        except (StepFailed, Interrupted) as error:
            error.remains = error.remains or "Nothing was changed; the environment's state is as it was."
            raise
        except OSError as error:
            raise storage_failed("cannot write", tofu.folder, error) from error

    def _put_back(self, session: Session, before: AnyEnvironment) -> None:
        """The tofu folder as the saved specification says, for whoever types `tofu` there: what was only asked about is
        undone. Never raises: the next plan renders it anyway."""
        from deployer.workflows.provision import render

        with suppress(DeployerError, OSError):
            spec = self._spec(before)
            if render(session, spec, Path(before.directory)):
                self._tofu(session.folder, spec, session).init()

    @contextmanager
    def _session(self, name: str, command: str, *, new: bool = False) -> Iterator[Session]:
        from deployer.storage.journal import Journal
        from deployer.workflows.run import Session

        interrupts = self._interrupts()
        with self._repository.hold(name, command, timeout=self._lock_timeout, interrupts=interrupts, new=new) as held:
            run_id = f"{utc_now():%Y%m%dT%H%M%S.%fZ}-{command}-{secrets.token_hex(2)}"
            journal = Journal(held.folder, run_id, self._report)
            yield Session(
                held=held,
                folder=held.folder,
                run_id=run_id,
                log=journal.log,
                report=journal,
                interrupts=interrupts,
                environ=self._environ,
            )

    def _run(self, session: Session, before: AnyEnvironment, environment: P, steps: tuple[str, ...]) -> Run[P]:
        from deployer.workflows.run import Run

        return Run(session, before, environment, steps)

    def _held(self, session: Session) -> AnyEnvironment:
        return session.held.load() or self._repository.load(session.folder.name)

    def _accept_for(self, name: str, file: Path | None) -> LoadedSpec | None:
        if file is None:
            return None
        accepted = self._accept(file)
        if accepted.spec.name != name:
            message = f"{file} is the file of environment {accepted.spec.name}, not of {name}"
            raise InvalidInput(message, help=f"deployer provision {accepted.spec.name} -f {file}")
        return accepted

    def _file(self, file_or_name: str) -> Path | None:
        """The argument as a file: where it looks like one, or is one and no environment has that name."""
        looks = "/" in file_or_name or file_or_name.endswith((".yml", ".yaml"))
        if looks or (file_or_name not in self._repository.names() and (self._cwd / file_or_name).is_file()):
            return Path(file_or_name)
        return None

    def _create(self, session: Session, before: AnyEnvironment | None, accepted: LoadedSpec) -> Created:
        from deployer.workflows.run import tell_transition

        environment = create(accepted.spec.name, accepted.data, str(accepted.directory), utc_now())
        session.held.save(environment)
        tell_transition(session, environment.name, before.state if before else "", environment.state, "")
        return environment

    def _wrong(self, environment: AnyEnvironment, command: str, help_: str) -> WrongState:
        return WrongState(
            f"{command} cannot start from the state {environment.state} of environment {environment.name}",
            detail=_WHY.get((command, environment.state), f"{command} does not go on from there"),
            help=help_,
        )


_WHY = {
    ("configure", "created"): "its machines have not been made yet",
    ("configure", "provisioning"): "its machines are not finished",
    ("configure", "provision_failed"): "its machines are not finished",
    ("provision", "destroying"): "its destruction has begun and must be finished",
    ("provision", "destroy_failed"): "its destruction has begun and must be finished",
    ("provision", "destroyed"): "nothing of it exists; it must be created anew",
}


def _differs(environment: AnyEnvironment, accepted: LoadedSpec) -> bool:
    return environment.spec != accepted.data or environment.directory != str(accepted.directory)


def _finished(environment: AnyEnvironment) -> tuple[FinishedStep, ...]:
    return (
        environment.progress.finished if isinstance(environment, InProgress) else getattr(environment, "finished", ())
    )
