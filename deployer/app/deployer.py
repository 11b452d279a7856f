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
from deployer.config.model import LoadedSpec
from deployer.environment import AnyEnvironment, Created, Destroyed, ProvisionFailed, Provisioning
from deployer.errors import Declined, DeployerError, Interrupted, StepFailed, WrongState
from deployer.events import Notice, utc_now
from deployer.storage.folder import storage_failed
from deployer.storage.journal import Journal
from deployer.workflows.advice import next_commands, see_all_is_known
from deployer.workflows.run import Run, Session

# What stands in functions below is slow to import, and `list` and `show` do without.
if TYPE_CHECKING:
    from deployer.tofu.engine import Tofu
    from deployer.tofu.stream import Plan


@dataclass(frozen=True)
class Changes:
    """What a changed file or a changed reality would bring: lines on the file, and OpenTofu's plan."""

    spec: tuple[str, ...]
    plan: Plan


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
                help_ = f"deployer up {file}    # goes on with it, with this file"
                raise _wrong(before, "create", "it exists already", help_)
            return _create(session, before, accepted)

    def provision(
        self, file_or_name: Path | str, *, from_start: bool = False, confirm: Confirm | None = None
    ) -> AnyEnvironment:
        """Makes the machines, going on where an earlier run stopped. A settled environment with nothing to change
        stays as it is. `confirm` is asked before what exists is changed. Raises WrongState, StepFailed, Declined."""
        name, accepted = self._named(file_or_name)
        with self._session(name, "provision") as session:
            before = self._held(session)
            after = self._provision(session, before, accepted or self._saved(before), from_start, confirm)
            if after is before:
                self._tell_unchanged(after)
            return after

    def configure(self, name: str, *, from_start: bool = False) -> AnyEnvironment:
        """Runs the playbooks, going on where an earlier run stopped. Raises WrongState, StepFailed."""
        with self._session(name, "configure") as session:
            return self._configure(session, self._held(session), from_start)

    def up(
        self, file_or_name: Path | str, *, from_start: bool = False, confirm: Confirm | None = None
    ) -> AnyEnvironment:
        """All that is left to do until the machines are configured; OpenTofu is asked first, whatever the state. Raises
        as create, provision and configure do."""
        name, accepted = self._named(file_or_name)
        with self._session(name, "up", new=accepted is not None) as session:
            found = session.held.load()
            if accepted and (found is None or isinstance(found, Destroyed)):
                found = _create(session, found, accepted)
            before = found or self._held(session)
            after = self._provision(session, before, accepted or self._saved(before), from_start, confirm)
            if isinstance(after, states.Configured):
                self._tell_unchanged(after)
                return after
            return self._configure(session, after, from_start)

    def destroy(self, name: str, *, abandon: bool = False) -> Destroyed:
        """Takes everything away. `abandon`: the caller has looked, and nothing exists; OpenTofu is not asked."""
        from deployer.workflows import destroy

        with self._session(name, "destroy") as session:
            before, spec, folder = self._load(name)
            if isinstance(before, Destroyed):
                self._report(Notice(message=f"environment {name} is destroyed already", environment=name))
                return before
            if not abandon:
                # Said before anything changes: from here the way out may be to provision, which `destroying` bars.
                see_all_is_known(folder, before)
            run = Run(session, before, before.start_destroy(session.run_id, utc_now()), destroy.STEPS)
            needed = not abandon and destroy.something_to_destroy(before, folder)
            tofu = self._tofu(folder, spec, session) if needed else None
            return destroy.destroy(run, tofu, spec)

    def plan(self, name: str) -> Plan:
        """What OpenTofu would do now. The environment's state does not change."""
        with self._session(name, "plan") as session:
            before = self._held(session)
            if isinstance(before, (Destroyed, states.Destroying)):
                raise _wrong(before, "plan", "its destruction has begun", f"deployer show {name}")
            saved = self._saved(before)
            return _preview(session, saved, self._tofu(session.folder, saved.spec, session))

    def _provision(
        self, session: Session, before: AnyEnvironment, wanted: LoadedSpec, from_start: bool, confirm: Confirm | None
    ) -> AnyEnvironment:
        from deployer.workflows import provision

        if isinstance(before, (Destroyed, states.Destroying, states.DestroyFailed)):
            why = "its destruction must be finished, and it be created anew"
            raise _wrong(before, "provision", why, next_commands(before)[0])
        spec, directory, changed = wanted.spec, wanted.directory, _differs(before, wanted)
        remakes = changed and before.resources != "none"
        if remakes and (made_by := self._spec(before).provider).name != spec.provider.name:
            why = f"{made_by.title} made its machines, and only {made_by.title} knows how to remove them"
            raise _wrong(before, "a change of provider", why, f"deployer destroy {before.name}    # and then up")
        tofu = self._tofu(session.folder, spec, session)
        settled = isinstance(before, states.Configurable)
        if settled or remakes:
            try:
                changes = Changes(spec_changes(before.spec, wanted.data), _preview(session, wanted, tofu))
                nothing = settled and not changed and changes.plan.empty
                if nothing and not from_start:
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

        if not isinstance(before, states.Configurable):
            raise _wrong(before, "configure", "its machines are not ready", next_commands(before)[0])
        resumes = isinstance(before, (states.Configuring, states.ConfigureFailed)) and not from_start
        done = configure.steps_to_keep(finished_steps(before)) if resumes else ()
        spec = self._spec(before)
        started = before.start_configure(session.run_id, utc_now(), done=done)
        return configure.configure(Run(session, before, started, configure.steps(spec)), spec)

    def _tell_unchanged(self, environment: AnyEnvironment) -> None:
        message = f"nothing to do: environment {environment.name} is as its file and OpenTofu say"
        self._report(Notice(message=message, environment=environment.name))

    def _put_back(self, session: Session, before: AnyEnvironment, tofu: Tofu) -> None:
        """The tofu folder as the saved specification says, for whoever types `tofu` there: what was only asked about is
        undone. Never raises: the next plan renders it anyway."""
        from deployer.workflows.provision import render

        with suppress(DeployerError, OSError):
            if render(session, self._spec(before), Path(before.directory)):
                tofu.init()

    def _named(self, file_or_name: Path | str) -> tuple[str, LoadedSpec | None]:
        """The environment's name, and what its file says if one is given: a text with a dot or a slash is no name."""
        if isinstance(file_or_name, str) and not {".", "/"} & set(file_or_name):
            return file_or_name, None
        accepted = self._accept(Path(file_or_name))
        return accepted.spec.name, accepted

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
        return LoadedSpec(self._spec(environment), environment.spec, Path(environment.directory))


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


def _wrong(environment: AnyEnvironment, command: str, why: str, help_: str) -> WrongState:
    name, state = environment.name, environment.state
    return WrongState(f"{command} cannot start from the state {state} of environment {name}", detail=why, help=help_)
