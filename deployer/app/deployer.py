"""The library's front door: everything the command line does. Prints nothing, exits never, raises our errors."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer import environment as states
from deployer.app.overview import finished_steps
from deployer.app.reading import Reading
from deployer.config.diff import spec_changes
from deployer.environment import AnyEnvironment, Created, Destroyed, ProvisionFailed, Provisioning
from deployer.errors import Declined, DeployerError, Interrupted, InvalidInput, StepFailed, WrongState
from deployer.events import Notice, utc_now
from deployer.storage.folder import storage_failed
from deployer.storage.journal import Journal
from deployer.workflows.advice import next_commands
from deployer.workflows.doubt import doubt
from deployer.workflows.run import Run, Session

# What stands in functions below is slow to import, and `list` and `show` do without.
if TYPE_CHECKING:
    from deployer.config.loading import LoadedSpec
    from deployer.tofu.engine import Tofu
    from deployer.tofu.stream import Plan


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
        with self._session(accepted.spec.name, "create", new=True) as session:
            before = session.held.load()
            if before is not None and not isinstance(before, Destroyed):
                raise _wrong(before, "create", f"deployer up {file}    # goes on with it, with this file")
            return _create(session, before, accepted)

    def provision(
        self, name: str, *, file: Path | None = None, from_start: bool = False, confirm: Confirm | None = None
    ) -> AnyEnvironment:
        """Makes the machines, going on where an earlier run stopped. A settled environment with nothing to change
        stays as it is. `confirm` is asked before what exists is changed. Raises WrongState, StepFailed, Declined."""
        accepted = self._accept(file) if file else None
        if accepted and accepted.spec.name != name:
            message = f"{file} is the file of environment {accepted.spec.name}, not of {name}"
            raise InvalidInput(message, help=f"deployer provision {accepted.spec.name} -f {file}")
        with self._session(name, "provision") as session:
            before = self._held(session)
            return self._provision(session, before, accepted or self._saved(before), from_start, confirm)

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
            found = session.held.load()
            if accepted and (found is None or isinstance(found, Destroyed)):
                found = _create(session, found, accepted)
            before = found or self._held(session)
            wanted = accepted or self._saved(before)
            made = isinstance(before, (states.Provisioned, states.Configuring, states.ConfigureFailed))
            if not made or from_start or _differs(before, wanted):
                before = self._provision(session, before, wanted, from_start, confirm)
            if isinstance(before, states.Configured):  # there was nothing to do
                return before
            return self._configure(session, before, from_start)

    def destroy(self, name: str, *, abandon: bool = False) -> Destroyed:
        """Takes everything away. `abandon`: the caller has looked, and nothing exists; OpenTofu is not asked."""
        from deployer.workflows import destroy

        with self._session(name, "destroy") as session:
            before, spec, folder = self._load(name)
            if isinstance(before, Destroyed):
                self._report(Notice(message=f"environment {name} is destroyed already", environment=name))
                return before
            if not abandon and (problem := doubt(folder, before)) is not None:
                # Said before anything changes: from here the way out may be to provision, which `destroying` bars.
                problem.remains = f"The environment {name} stays {before.state}, and everything in its place."
                raise problem
            run = Run(session, before, before.start_destroy(session.run_id, utc_now()), destroy.STEPS)
            needed = not abandon and destroy.something_to_destroy(before, folder)
            tofu = self._tofu(folder, spec, session) if needed else None
            return destroy.destroy(run, tofu, spec)

    def plan(self, name: str) -> Plan:
        """What OpenTofu would do now. The environment's state does not change."""
        with self._session(name, "plan") as session:
            before = self._held(session)
            if isinstance(before, (Destroyed, states.Destroying)):
                raise _wrong(before, "plan", f"deployer show {name}")
            saved = self._saved(before)
            return _preview(session, saved, self._tofu(session.folder, saved.spec, session))

    def _provision(
        self, session: Session, before: AnyEnvironment, wanted: LoadedSpec, from_start: bool, confirm: Confirm | None
    ) -> AnyEnvironment:
        from deployer.workflows import provision

        if isinstance(before, (Destroyed, states.Destroying, states.DestroyFailed)):
            raise _wrong(before, "provision", next_commands(before)[0])
        spec, directory, changed = wanted.spec, wanted.directory, _differs(before, wanted)
        tofu = self._tofu(session.folder, spec, session)
        settled = isinstance(before, (states.Provisioned, states.Configured, states.ConfigureFailed))
        if settled or (changed and before.resources != "none"):
            try:
                changes = self._changes(session, before, wanted, tofu)
                nothing = settled and not changed and bool(changes.plan and changes.plan.empty)
                if nothing and not from_start:
                    message = f"nothing to do: environment {before.name} is as its file and OpenTofu say"
                    self._report(Notice(message=message, environment=before.name))
                    return before
                if confirm is not None and not nothing and not confirm(changes):
                    raise Declined("the changes were not confirmed", help=f"deployer show {before.name}")
            except BaseException:
                if changed:
                    self._put_back(session, before, tofu)
                raise
        resumes = isinstance(before, (Provisioning, ProvisionFailed)) and not changed and not from_start
        done = provision.steps_to_keep(finished_steps(before), spec, directory, session.folder) if resumes else ()
        at, where = utc_now(), str(directory)
        started = before.start_provision(session.run_id, at, spec=wanted.data, directory=where, done=done)
        return provision.provision(Run(session, before, started, provision.STEPS), spec, tofu)

    def _configure(self, session: Session, before: AnyEnvironment, from_start: bool) -> states.Configured:
        from deployer.workflows import configure

        if isinstance(before, (states.Configuring, states.ConfigureFailed)):
            done = () if from_start else configure.steps_to_keep(finished_steps(before))
        elif isinstance(before, (states.Provisioned, states.Configured)):
            done = ()
        else:
            raise _wrong(before, "configure", next_commands(before)[0])
        spec = self._spec(before)
        started = before.start_configure(session.run_id, utc_now(), done=done)
        return configure.configure(Run(session, before, started, configure.steps(spec)), spec)

    def _changes(self, session: Session, before: AnyEnvironment, wanted: LoadedSpec, tofu: Tofu) -> Changes:
        """What would come of it. The tofu folder holds what was asked about then."""
        lines = spec_changes(before.spec, wanted.data)
        try:
            return Changes(lines, _preview(session, wanted, tofu))
        except StepFailed as error:
            if not isinstance(before, (ProvisionFailed, Provisioning)):
                raise
            # What failed may well fail here too; it is told in its own step, with all there is to say.
            self._report(Notice(message=f"no plan to show yet: {error}", level="warning", environment=before.name))
            return Changes(lines, None)

    def _put_back(self, session: Session, before: AnyEnvironment, tofu: Tofu) -> None:
        """The tofu folder as the saved specification says, for whoever types `tofu` there: what was only asked about is
        undone. Never raises: the next plan renders it anyway."""
        from deployer.workflows.provision import render

        with suppress(DeployerError, OSError):
            if render(session, self._spec(before), Path(before.directory)):
                tofu.init()

    @contextmanager
    def _session(self, name: str, command: str, *, new: bool = False) -> Iterator[Session]:
        interrupts = self._interrupts
        with self._repository.hold(name, command, timeout=self._lock_timeout, interrupts=interrupts, new=new) as held:
            run_id = f"{utc_now():%Y%m%dT%H%M%S.%fZ}-{command}-{secrets.token_hex(2)}"
            journal, folder, environ = Journal(held.folder, run_id, self._report), held.folder, self._environ
            yield Session(
                held=held, folder=folder, run_id=run_id, journal=journal, interrupts=interrupts, environ=environ
            )

    def _held(self, session: Session) -> AnyEnvironment:
        return session.held.load() or self._repository.load(session.folder.name)

    def _saved(self, environment: AnyEnvironment) -> LoadedSpec:
        from deployer.config.loading import LoadedSpec

        return LoadedSpec(self._spec(environment), environment.spec, Path(environment.directory))

    def _file(self, file_or_name: str) -> Path | None:
        """The argument as a file: where it looks like one, or is one and no environment has that name."""
        looks = "/" in file_or_name or file_or_name.endswith((".yml", ".yaml"))
        if looks or (file_or_name not in self._repository.names() and (self._cwd / file_or_name).is_file()):
            return Path(file_or_name)
        return None


def _create(session: Session, before: AnyEnvironment | None, accepted: LoadedSpec) -> Created:
    environment = states.create(accepted.spec.name, accepted.data, str(accepted.directory), utc_now())
    session.held.save(environment)
    session.tell(environment, before)
    return environment


def _preview(session: Session, wanted: LoadedSpec, tofu: Tofu) -> Plan:
    from deployer.workflows.provision import render

    try:
        # Rendered each time: the user's own module may have changed, and so may what an earlier question left.
        if render(session, wanted.spec, wanted.directory) or not (tofu.folder / ".terraform").exists():
            tofu.init()
            tofu.validate()
        return tofu.plan()
    except (StepFailed, Interrupted) as error:
        error.remains = error.remains or "Nothing was changed; the environment's state is as it was."
        raise
    except OSError as error:
        raise storage_failed("cannot write", tofu.folder, error) from error


def _differs(environment: AnyEnvironment, wanted: LoadedSpec) -> bool:
    return environment.spec != wanted.data or environment.directory != str(wanted.directory)


_WHY = {
    ("configure", "created"): "its machines have not been made yet",
    ("configure", "provisioning"): "its machines are not finished",
    ("configure", "provision_failed"): "its machines are not finished",
    ("provision", "destroying"): "its destruction has begun and must be finished",
    ("provision", "destroy_failed"): "its destruction has begun and must be finished",
    ("provision", "destroyed"): "nothing of it exists; it must be created anew",
}


def _wrong(environment: AnyEnvironment, command: str, help_: str) -> WrongState:
    name, state = environment.name, environment.state
    why = _WHY.get((command, state), f"{command} does not go on from there")
    return WrongState(f"{command} cannot start from the state {state} of environment {name}", detail=why, help=help_)
