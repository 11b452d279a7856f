"""The library's front door: everything the command line does. Prints nothing, exits never, raises our errors."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

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
from deployer.errors import Declined, InvalidInput, UnreadableState, WrongState
from deployer.events import Notice, Report, ignore, utc_now
from deployer.storage.files import FileRepository, unreadable
from deployer.storage.folder import EnvironmentFolder, find_home

if TYPE_CHECKING:
    from deployer.app.doctor import Check
    from deployer.app.overview import Entry, Overview
    from deployer.config.loading import LoadedSpec
    from deployer.config.model import Spec
    from deployer.process import Interrupts
    from deployer.tofu.engine import Tofu
    from deployer.tofu.stream import Plan
    from deployer.workflows.run import Run, Session

P = TypeVar("P", Provisioning, Configuring, Destroying)


@dataclass(frozen=True)
class Changes:
    """What a changed file or a changed reality would bring: lines on the specification, and OpenTofu's plan if known."""

    spec: tuple[str, ...]
    plan: Plan | None


Confirm = Callable[[Changes], bool]


class Deployer:
    """All environments of one home.

    `report` is told every event, possibly from worker threads. `interrupts` carries the wish to stop; without it, Ctrl+C
    raises KeyboardInterrupt as usual. `lock_timeout` is in seconds. The constructor touches no disk.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        report: Report = ignore,
        interrupts: Interrupts | None = None,
        lock_timeout: float = 0.0,
        cwd: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._cwd = cwd or Path.cwd()
        self._environ = dict(os.environ if environ is None else environ)
        self.home = (self._cwd / home).absolute() if home else find_home(self._cwd, self._environ)
        self._report = report
        self._given_interrupts = interrupts
        self._lock_timeout = lock_timeout
        self._repository = FileRepository(self.home)

    # -- reading: no lock, no tool ------------------------------------------------------------------------------------

    def status(self, name: str) -> str:
        """The state's name. Raises UnknownEnvironment, UnreadableState."""
        return self._repository.load(name).state

    def list(self) -> tuple[Entry, ...]:
        """A line for each environment; one that cannot be read is there too, with its problem."""
        from deployer.app.overview import Entry, entry

        entries: list[Entry] = []
        for name in self._repository.names():
            try:
                entries.append(entry(self._repository.load(name), self._repository.holder(name)))
            except UnreadableState as error:
                entries.append(Entry(name=name, state="", problem=error.detail))
        return tuple(entries)

    def show(self, name: str, *, refresh: bool = False) -> Overview:
        """All there is to know; with `refresh` also how it compares with reality. Raises UnreadableState."""
        from deployer.app import reality
        from deployer.app.overview import Overview, entry, failure_of, hosts_of, in_flight, last_log, steps_of
        from deployer.workflows.advice import next_commands, what_exists

        environment, spec = self._load(name)
        folder = self._repository.folder(name)
        holder = self._repository.holder(name)
        line = entry(environment, holder)
        failure = failure_of(environment)
        return Overview(
            name=name,
            state=environment.state,
            interrupted=line.interrupted,
            busy=holder.as_dict() if holder else None,
            step=in_flight(environment),
            failure=failure,
            resources=line.resources,
            exists=what_exists(environment, folder.tofu),
            hosts=hosts_of(environment),
            provider=spec.provider.title,
            playbooks=spec.configure.playbooks,
            created_at=environment.created_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            changed_at=line.changed_at,
            steps=steps_of(environment),
            log=str(failure["log"]) if failure else last_log(folder),
            tofu_directory=str(folder.tofu),
            next_commands=next_commands(environment) if holder is None else (f"deployer show {name}",),
            reality=reality.compare(environment, self._tofu(folder, spec)) if refresh else (),
        )

    def inventory(self, name: str | None = None) -> dict[str, object]:
        """Ansible's dynamic inventory of one environment, or of all that have hosts. Raises UnreadableState."""
        from deployer.ansible import inventory_data
        from deployer.workflows.configure import inventory_environment

        names = (name,) if name else self._repository.names()
        loaded = [(self._load(n), self._repository.folder(n)) for n in names]
        return inventory_data([inventory_environment(e, s, folder) for (e, s), folder in loaded if e.hosts])

    def logs(self, name: str) -> tuple[Path, ...]:
        """The logs of an environment's runs, oldest first. Raises UnknownEnvironment."""
        folder = self._repository.folder(name)
        self._repository.load(name)
        return tuple(sorted(folder.logs.glob("*.log")))

    def ssh_command(self, name: str, host: str | None = None, command: Sequence[str] = ()) -> tuple[str, ...]:
        """The argv that opens a session on a host, or runs `command` there. Raises WrongState without hosts."""
        from deployer.remote import ssh_argv
        from deployer.workflows.hosts import targets
        from deployer.workflows.keys import private_key

        environment, spec = self._load(name)
        if not environment.hosts:
            raise WrongState(
                f"environment {name} has no hosts to log in to",
                detail=f"its state is {environment.state}",
                remains="Nothing was changed.",
                help=f"deployer up {name}",
            )
        chosen = host or (next(iter(environment.hosts)) if len(environment.hosts) == 1 else "")
        if chosen not in environment.hosts:
            raise InvalidInput(
                f"environment {name} has no host {host}" if host else f"environment {name} has several hosts",
                detail=f"its hosts are {', '.join(environment.hosts)}",
                remains="Nothing was changed.",
                help=f"deployer ssh {name} {next(iter(environment.hosts))}",
            )
        folder = self._repository.folder(name)
        key = private_key(spec, Path(environment.directory), folder)
        (target,) = targets({chosen: environment.hosts[chosen]}, folder, key)
        return ssh_argv(target, *command, interactive=not command)

    # -- before there is an environment -------------------------------------------------------------------------------

    def init(self, directory: Path) -> Path:
        """Makes a home and a commented example in `directory`. Raises InvalidInput where the file is there already."""
        from deployer.config.guide import EXAMPLE_NAME, example
        from deployer.storage.folder import HOME_NAME, private_directory, storage_failed

        folder = (self._cwd / directory).absolute()
        path = folder / EXAMPLE_NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(example())
        except FileExistsError:
            raise InvalidInput(
                f"{path} exists already",
                detail="init writes a new file only",
                remains="It was left as it is.",
                help=f"deployer validate -f {path}",
            ) from None
        except OSError as error:
            raise storage_failed("cannot write", path, error) from error
        private_directory(folder / HOME_NAME)
        return path

    def validate(self, file: Path) -> Spec:
        """Raises InvalidSpec, with one complaint for each thing wrong."""
        return self._accept(file).spec

    def doctor(self, *, install: bool = False) -> tuple[Check, ...]:
        """Every tool and circumstance, each with what to type where it is missing."""
        from deployer.app.doctor import examine

        return examine(
            self.home, self._environ, self._interrupts(), self._report, install=install, cwd=self._cwd
        )

    # -- changing: under the lock, for the whole command --------------------------------------------------------------

    def create(self, file: Path) -> Created:
        """A new environment, or a destroyed one anew. Raises InvalidSpec, WrongState."""
        accepted = self._accept(file)
        name = accepted.spec.name
        with self._session(name, "create", new=True) as session:
            before = session.held.load()
            if before is not None and not isinstance(before, Destroyed):
                raise self._wrong(before, "create", f"deployer up {file}    # goes on with it, with this file")
            environment = create(name, accepted.data, str(accepted.directory), utc_now())
            session.held.save(environment)
            self._tell_created(session, before, environment)
            return environment

    def provision(
        self, name: str, *, file: Path | None = None, from_start: bool = False, confirm: Confirm | None = None
    ) -> AnyEnvironment:
        """Makes the machines, going on where an earlier run stopped. A settled environment with nothing to change stays
        as it is. `confirm` is asked before something that exists is changed. Raises WrongState, StepFailed, Declined."""
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
                environment = create(name, accepted.data, str(accepted.directory), utc_now())
                session.held.save(environment)
                self._tell_created(session, before, environment)
                before, accepted = environment, None
            return self._up(session, before or self._held(session), accepted, from_start, confirm)

    def destroy(self, name: str, *, abandon: bool = False) -> Destroyed:
        """Takes everything away. `abandon`: the caller has looked, and nothing exists; OpenTofu is not asked."""
        from deployer.workflows import destroy

        with self._session(name, "destroy") as session:
            before = self._held(session)
            if isinstance(before, Destroyed):
                self._report(Notice(message=f"environment {name} is destroyed already", environment=name))
                return before
            environment = before.start_destroy(session.run_id, utc_now())
            run = self._run(session, before, environment, destroy.STEPS)
            _, spec = self._load(name)
            needed = before.resources != "none" or session.folder.tofu.exists()
            tofu = self._tofu(session.folder, spec, session) if needed and not abandon else None
            run.begin()
            return destroy.destroy(run, tofu, abandon=abandon)

    def plan(self, name: str) -> Plan:
        """What OpenTofu would do now. The environment's state does not change."""
        with self._session(name, "plan") as session:
            environment = self._held(session)
            if isinstance(environment, (Destroyed, Destroying)):
                raise self._wrong(environment, "plan", f"deployer show {name}")
            spec = self._spec(environment)
            return self._preview(session, spec, Path(environment.directory))

    # -- how ----------------------------------------------------------------------------------------------------------

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
        if (settled and not from_start) or (accepted and before.resources != "none"):
            changes = self._changes(session, before, accepted, spec, directory)
            if settled and changes.plan is not None and changes.plan.empty and accepted is None:
                message = f"nothing to do: environment {before.name} is as its file and OpenTofu say"
                self._report(Notice(message=message, environment=before.name))
                return before
            if confirm is not None and not confirm(changes):
                raise Declined(
                    f"environment {before.name} was left as it is",
                    detail="the changes were not confirmed",
                    remains="Nothing was changed.",
                    help=f"deployer show {before.name}",
                )
        resumes = isinstance(before, (Provisioning, ProvisionFailed)) and accepted is None and not from_start
        done = provision.steps_to_keep(_finished(before)) if resumes else ()
        environment = before.start_provision(
            session.run_id,
            utc_now(),
            spec=accepted.data if accepted else None,
            directory=str(directory),
            done=done,
        )
        run = self._run(session, before, environment, provision.STEPS)
        run.begin()
        return provision.provision(run, spec, tofu)

    def _configure(
        self, session: Session, before: AnyEnvironment, from_start: bool
    ) -> Configured:
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
        """What would come of it. The tofu folder is as before afterwards, where the file has not changed."""
        from deployer.config.diff import spec_changes
        from deployer.errors import StepFailed

        lines = spec_changes(before.spec, accepted.data) if accepted else ()
        try:
            return Changes(lines, self._preview(session, spec, directory, rendered=accepted is None))
        except StepFailed as error:
            if not isinstance(before, (ProvisionFailed, Provisioning)):
                raise
            # What failed may well fail here too; it is told in its own step, with all there is to say.
            self._report(Notice(message=f"no plan to show yet: {error}", level="warning", environment=before.name))
            return Changes(lines, None)

    def _preview(self, session: Session, spec: Spec, directory: Path, *, rendered: bool = False) -> Plan:
        from deployer.workflows.provision import render

        tofu = self._tofu(session.folder, spec, session)
        if not rendered:
            render(session, spec, directory)
            tofu.init()
            tofu.validate()
        return tofu.plan(lock=False)

    @contextmanager
    def _session(self, name: str, command: str, *, new: bool = False) -> Iterator[Session]:
        from deployer.storage.journal import Journal
        from deployer.workflows.run import Session

        interrupts = self._interrupts()
        with self._repository.hold(
            name, command, timeout=self._lock_timeout, interrupts=interrupts, new=new
        ) as held:
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

    def _tofu(self, folder: EnvironmentFolder, spec: Spec, session: Session | None = None) -> Tofu:
        from deployer.storage.folder import private_directory
        from deployer.tofu.binary import cache_directory, find_engine
        from deployer.tofu.engine import Limits, Tofu, tofu_environment

        interrupts = session.interrupts if session else self._interrupts()
        engine = find_engine(self._environ, interrupts=interrupts)
        plugins = private_directory(cache_directory(self._environ) / "plugins")
        limits = spec.timeouts
        return Tofu(
            engine.path,
            folder.tofu,
            env=tofu_environment(self._environ, plugins),
            limits=Limits(init=limits.init, plan=limits.plan, apply=limits.apply, destroy=limits.destroy),
            interrupts=interrupts,
            report=session.report if session else ignore,
            register=session.held if session else None,
        )

    def _run(self, session: Session, before: AnyEnvironment, environment: P, steps: tuple[str, ...]) -> Run[P]:
        from deployer.workflows.run import Run

        return Run(session, before, environment, steps)

    def _held(self, session: Session) -> AnyEnvironment:
        return session.held.load() or self._repository.load(session.folder.name)

    def _load(self, name: str) -> tuple[AnyEnvironment, Spec]:
        environment = self._repository.load(name)
        return environment, self._spec(environment)

    def _spec(self, environment: AnyEnvironment) -> Spec:
        import json

        from pydantic import ValidationError

        from deployer.config.model import Spec

        try:
            return Spec.model_validate_json(json.dumps(environment.spec))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in ("spec", *first["loc"]))
            raise unreadable(self._repository.folder(environment.name), f"field {field}: {first['msg']}") from None

    def _accept(self, file: Path) -> LoadedSpec:
        from deployer.config.loading import load_spec

        return load_spec(self._cwd / file)

    def _accept_for(self, name: str, file: Path | None) -> LoadedSpec | None:
        if file is None:
            return None
        accepted = self._accept(file)
        if accepted.spec.name != name:
            raise InvalidInput(
                f"{file} is the file of environment {accepted.spec.name}, not of {name}",
                detail="an environment keeps its name",
                remains="Nothing was changed.",
                help=f"deployer provision {accepted.spec.name} -f {file}",
            )
        return accepted

    def _file(self, file_or_name: str) -> Path | None:
        """The argument as a file: where it looks like one, or is one and no environment has that name."""
        looks = "/" in file_or_name or file_or_name.endswith((".yml", ".yaml"))
        if looks or (file_or_name not in self._repository.names() and (self._cwd / file_or_name).is_file()):
            return Path(file_or_name)
        return None

    def _interrupts(self) -> Interrupts:
        from deployer.process import Interrupts

        return self._given_interrupts or Interrupts()

    def _tell_created(self, session: Session, before: AnyEnvironment | None, environment: Created) -> None:
        from deployer.workflows.run import tell_transition

        tell_transition(session, environment.name, before.state if before else "", environment.state, "")

    def _wrong(self, environment: AnyEnvironment, command: str, help_: str) -> WrongState:
        return WrongState(
            f"{command} cannot start from the state {environment.state} of environment {environment.name}",
            detail=_WHY.get((command, environment.state), f"{command} does not go on from there"),
            remains="Nothing was changed.",
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
    return environment.progress.finished if isinstance(environment, InProgress) else getattr(environment, "finished", ())
