"""The library's front door: everything the command line does. Prints nothing, exits never, raises our errors."""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from deployer import environment as states
from deployer import errors
from deployer.ansible.inventory import InventoryEnvironment, inventory_data
from deployer.app.doctor import Check, examine
from deployer.app.overview import Overview, compare, overview
from deployer.config.loading import load_spec
from deployer.config.model import EXAMPLE, LoadedSpec, Spec, schema
from deployer.environment import AnyEnvironment, Created, Destroyed, finished_steps
from deployer.events import Event, Notice, Report, ignore, utc_now
from deployer.files import word, write_atomically
from deployer.process import Context, Interrupts
from deployer.remote.ssh import ssh_argv
from deployer.storage.folder import HOME_NAME, EnvironmentFolder, find_home, private_directory, storage_failed
from deployer.storage.journal import Journal
from deployer.storage.repository import FileRepository, unreadable
from deployer.tofu.binary import cache_directory, find_engine
from deployer.tofu.engine import Tofu, tofu_environment
from deployer.tofu.module import put_back
from deployer.tofu.state import look
from deployer.veil import veil
from deployer.workflows import configure, destroy
from deployer.workflows.advice import again, being_destroyed, next_commands, see_all_is_known, wrong_state
from deployer.workflows.hosts import targets
from deployer.workflows.review import Changes, Confirm, changes, preview, provision_reviewed, retry, see_provider_stays
from deployer.workflows.run import Run, Session, log


class Deployer:
    """All environments of one home. What only looks at them needs no lock, and no tool but where it says so.

    `report` is told every event, possibly from worker threads. `interrupts` carries the wish to stop; without it,
    Ctrl+C raises KeyboardInterrupt as usual. `lock_timeout` is in seconds. The constructor touches no disk.
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
        self._cwd = (cwd or Path()).absolute()
        environ = dict(os.environ if environ is None else environ)
        self._context = Context(environ, interrupts or Interrupts(), _heard(report))
        self._named_home = home
        self._lock_timeout = lock_timeout

    @cached_property
    def home(self) -> Path:
        """Where the environments are kept: looked for when first needed. Raises InvalidInput as `find_home` does."""
        return find_home(self._cwd, self._context.environ, self._named_home)

    @cached_property
    def _repository(self) -> FileRepository:
        return FileRepository(self.home)

    def create(self, file: Path | str) -> Created:
        """A new environment, or a destroyed one anew. Raises InvalidSpec, WrongState."""
        accepted = load_spec(self._cwd / file)
        with self._session(accepted.spec.name, "create", new=True) as session:
            before = session.held.load()
            if before is not None and not isinstance(before, Destroyed):
                if not isinstance(before, states.Provisionable):
                    raise being_destroyed(before, session.command)
                go_on = f"deployer up {word(Path(file))}    # goes on with it, with this file"
                raise wrong_state(before, session.command, "it exists already", go_on)
            return self._accept(session, accepted, before)

    def provision(
        self, file_or_name: Path | str, *, from_start: bool = False, confirm: Confirm = None
    ) -> AnyEnvironment:
        """Makes the machines, going on where an earlier run stopped. A settled environment with nothing to change
        stays as it is. `confirm` is asked before what exists is changed. Raises WrongState, StepFailed, Declined."""
        name, accepted = self._named(file_or_name)
        with self._session(name, "provision") as session:
            made = self._wanted(session, self._repository.load(name), accepted)
            return provision_reviewed(session, *made, from_start=from_start, confirm=confirm)

    def configure(self, name: str, *, from_start: bool = False) -> AnyEnvironment:
        """Runs the playbooks, going on where an earlier run stopped. Raises WrongState, StepFailed."""
        with self._session(name, "configure") as session:
            before = self._repository.load(name)
            self._look_at_file(before, session)
            return self._configure(session, before, from_start)

    def up(self, file_or_name: Path | str, *, from_start: bool = False, confirm: Confirm = None) -> AnyEnvironment:
        """All that is left to do until the machines are configured; OpenTofu is asked first, whatever the state. Raises
        as create, provision and configure do."""
        name, accepted = self._named(file_or_name, makes=True)
        with self._session(name, "up", new=accepted is not None) as session:
            found = session.held.load()
            if accepted and (found is None or isinstance(found, Destroyed)):
                find_engine(session.context)  # without it, nothing is changed
                found = self._accept(session, accepted, found)
            made = self._wanted(session, found or self._repository.load(name), accepted)
            after = provision_reviewed(session, *made, from_start=from_start, confirm=confirm)
            return after if isinstance(after, states.Configured) else self._configure(session, after, from_start)

    def destroy(self, name: str, *, abandon: bool = False) -> Destroyed:
        """Takes everything away. `abandon`: the caller has looked, and nothing exists; OpenTofu is not asked."""
        with self._session(name, "destroy") as session:
            before, spec, folder = self._load(name)
            if isinstance(before, Destroyed):
                self._context.report(Notice(message=f"environment {name} is destroyed already", environment=name))
                return before
            if not abandon:
                # Said before anything changes: from here the way out may be to provision, which `destroying` bars.
                see_all_is_known(folder, before, destroys=True)
            run = Run(session, before, before.start_destroy(session.run_id, utc_now()))
            needed = not abandon and destroy.something_to_destroy(before, folder)
            tofu = self._working(session, before, spec) if needed else None
            return destroy.destroy(run, tofu, spec, again=isinstance(before, (states.Destroying, states.DestroyFailed)))

    def plan(self, file_or_name: Path | str) -> Changes:
        """What provision would do now, and be confirmed before. The environment's state does not change."""
        name, accepted = self._named(file_or_name)
        with self._session(name, "plan") as session:
            before, wanted, tofu = self._wanted(session, self._repository.load(name), accepted)
            with preview(session, wanted.spec, tofu, retry(session, before, wanted)) as plan:
                return changes(before, wanted, plan)

    def status(self, name: str) -> str:
        """The state's name. Raises UnknownEnvironment, UnreadableState."""
        return self._repository.load(name).state

    def list(self) -> tuple[Overview, ...]:
        """All environments; one that cannot be read is there too, with its problem."""
        found: list[Overview] = []
        for name in self._repository.names():
            try:
                found.append(self.show(name))
            except errors.UnreadableState as error:
                found.append(Overview(name=name, problem=error.detail))
        return tuple(found)

    def show(self, name: str, *, refresh: bool = False) -> Overview:
        """All there is to know; with `refresh` also how it compares with reality. Raises UnreadableState."""
        environment, spec, folder = self._load(name)
        reality: tuple[str, ...] = ()
        if refresh:
            context = replace(self._context, report=ignore)
            hosts, tofu = targets(environment, spec, folder), self._tofu(folder, context, spec)
            reality = tuple(compare(environment, spec, tofu, hosts, context))
        return overview(environment, spec, folder, self._repository.holder(name), reality)

    def inventory(self, name: str | None = None) -> dict[str, object]:
        """Ansible's dynamic inventory of one environment, or of all that have hosts; of all, one that cannot be used is
        left out, with a warning. Raises UnreadableState and StepFailed for the one that was named; InvalidInput without
        a home: none must not be taken for an empty one."""
        if name is None and not self.home.is_dir():
            help_ = "deployer init    # begins one here; or name another: --home, DEPLOYER_HOME"
            raise errors.InvalidInput(f"there is no home {self.home}", detail="so no inventory can be told", help=help_)
        usable: list[InventoryEnvironment] = []
        for each in self._repository.names() if name is None else [name]:
            try:
                found = configure.inventory_environment(*self._load(each))
                usable += [found] if found.hosts and inventory_data([found]) else []
            except (errors.UnreadableState, errors.StepFailed) as error:
                if name is not None:
                    raise
                message = f"environment {each} is not in the inventory: {error}"
                self._context.report(Notice(message=message, environment=each, level="warning"))
        return inventory_data(usable)

    def ssh_command(self, name: str, host: str | None = None, command: Sequence[str] = ()) -> tuple[str, ...]:
        """The argv that opens a session on a host, or runs `command` there. Raises WrongState without hosts."""
        environment, spec, folder = self._load(name)
        if not environment.hosts:
            message, detail = f"environment {name} has no hosts to log in to", f"its state is {environment.state}"
            raise errors.WrongState(message, detail=detail, help=next_commands(environment)[0])
        meant = [target for target in targets(environment, spec, folder) if not host or target.name == host]
        if len(meant) != 1:
            problem, hosts = f"no host {host}" if host else "several hosts", [*environment.hosts]
            detail, way_out = f"its hosts are {', '.join(hosts)}", f"deployer ssh {name} {hosts[0]}"
            raise errors.InvalidInput(f"environment {name} has {problem}", detail=detail, help=way_out)
        return ssh_argv(meant[0], *command, interactive=not command)

    def init(self, directory: Path) -> Path:
        """Makes a home and a commented example in `directory`. Raises InvalidInput where the file is there already."""
        folder = (self._cwd / directory).absolute()
        path = folder / EXAMPLE.name
        try:
            if os.path.lexists(path):
                raise FileExistsError
            private_directory(find_home(folder, {}, HOME_NAME))
            write_atomically(find_home(folder, {}) / "schema.json", json.dumps(schema(), indent=2).encode())
            with path.open("x", encoding="utf-8") as file:
                file.write(EXAMPLE.read_text(encoding="utf-8"))
        except FileExistsError:
            problem, way_out = f"{path} exists already", f"deployer validate {word(path)}"
            raise errors.InvalidInput(problem, detail="it was left as it is", help=way_out) from None
        except OSError as error:
            raise storage_failed("cannot write", path, error) from error
        return path

    def validate(self, file: Path | str) -> Spec:
        """Raises InvalidSpec, with one complaint for each thing wrong."""
        return load_spec(self._cwd / file).spec

    def doctor(self, *, install: bool = False) -> tuple[Check, ...]:
        """Every tool and circumstance, each with what to type where it is missing."""
        return examine(self._context, install=install)

    def _accept(self, session: Session, accepted: LoadedSpec, before: Destroyed | None) -> Created:
        """Keeps a new environment. One that this file has made under another name is told: nobody else will."""
        with suppress(errors.StorageFailed):  # what is the matter with the others does not bar this one
            for name in self._repository.names():
                with suppress(errors.DeployerError):
                    other = self._repository.load(name)
                    if other.file == str(accepted.file) and not isinstance(other, Destroyed):
                        message = f"environment {name} is of this file, too, and stays: deployer show {name}"
                        session.context.report(Notice(message=message, level="warning"))
        known = look(session.folder.tofu).condition != "absent"  # to OpenTofu, where only the state file is gone
        resources = states.Resources.POSSIBLE if known else states.Resources.NONE
        created = states.create(accepted.spec.name, accepted.data, str(accepted.file), utc_now(), resources)
        return session.keep(created, before)

    def _wanted(
        self, session: Session, before: AnyEnvironment, accepted: LoadedSpec | None
    ) -> tuple[states.AnyProvisionable, LoadedSpec, Tofu]:
        """What there is, what is wanted, and OpenTofu, which can tell and do the difference."""
        if not isinstance(before, states.Provisionable):
            raise being_destroyed(before, session.command)
        if accepted is None:
            self._look_at_file(before, session)
        wanted = accepted or LoadedSpec(self._spec(before), before.spec, Path(before.file))
        see_provider_stays(session, before, self._spec(before).provider, wanted)
        return before, wanted, self._working(session, before, wanted.spec)

    def _configure(self, session: Session, before: AnyEnvironment, from_start: bool) -> states.Configured:
        if not isinstance(before, states.Configurable):
            raise wrong_state(before, session.command, "its machines are not ready", next_commands(before)[0])
        resumes = isinstance(before, (states.Configuring, states.ConfigureFailed)) and not from_start
        done = configure.steps_to_keep(finished_steps(before)) if resumes else ()
        started = before.start_configure(session.run_id, utc_now(), done=done)
        return configure.configure(Run(session, before, started), self._spec(before))

    def _look_at_file(self, environment: AnyEnvironment, session: Session) -> None:
        """Says so where the file is not as it was accepted: a command that is given a name goes by what is saved."""
        is_there = os.path.isfile(environment.file)
        try:
            if (now := load_spec(Path(environment.file))).data == environment.spec:
                return
            state = "has changed" if now.spec.name == environment.name else f"is of environment {now.spec.name} now"
        except errors.InvalidSpec as error:
            state = f"cannot be used now ({error.complaints[0]})" if is_there else "is not there any more"
        problem = f"the file {environment.file} {state}, and this goes by what it said before"
        way_out = again(environment, "up") if is_there else "deployer up FILE"
        session.context.report(Notice(message=f"{problem}; to apply it: {way_out}", level="warning"))

    def _named(self, file_or_name: Path | str, *, makes: bool = False) -> tuple[str, LoadedSpec | None]:
        """The environment's name, and what its file says if one is given: a text with a dot or a slash is no name."""
        is_name = isinstance(file_or_name, str) and not {".", "/"} & set(file_or_name)
        accepted = None if is_name else load_spec(self._cwd / file_or_name)
        name = accepted.spec.name if accepted else str(file_or_name)
        files = [str(file_or_name)] if accepted else [f for f in (f"{name}.yml", name) if (self._cwd / f).is_file()]
        try:
            if files and not (accepted and makes):
                self._repository.load(name)
        except errors.UnknownEnvironment as error:
            error.help = f"deployer {'create' if accepted else 'up'} {word(files[0])}"
            raise
        return name, accepted

    @contextmanager
    def _session(self, name: str, command: str, *, new: bool = False) -> Iterator[Session]:
        interrupts, fresh = self._context.interrupts, not self.home.exists()
        if self._lock_timeout and (who := self._repository.holder(name)):
            self._context.report(Notice(message=f"waiting for `deployer {who.command}` (pid {who.pid}) or its tools"))
        with self._repository.hold(name, command, timeout=self._lock_timeout, interrupts=interrupts, new=new) as held:
            interrupts.check(command)
            run_id = f"{utc_now():%Y%m%dT%H%M%S.%fZ}-{command}-{secrets.token_hex(2)}"
            journal = Journal(held.folder, run_id, self._context.report)
            context = replace(self._context, report=journal, register=held)
            if fresh:
                journal(Notice(message=f"environments are kept in {self.home} from now on"))
            yield Session(command, held, held.folder, run_id, journal.log, context)

    def _working(self, session: Session, environment: AnyEnvironment, spec: Spec) -> Tofu:
        """OpenTofu, where its state can be trusted, in a folder with what the machines were made with."""
        if environment.resources == "present":
            see_all_is_known(session.folder, environment, destroys=False)
        tofu = self._tofu(session.folder, session.context, spec, self._spec(environment))
        try:
            put_back(tofu.folder, tofu.init)  # who was killed may have left another module there, or half of one
        except OSError as error:
            raise storage_failed("cannot write", tofu.folder, error) from error
        return tofu

    def _tofu(self, folder: EnvironmentFolder, context: Context, spec: Spec, *before: Spec) -> Tofu:
        engine = find_engine(context)
        plugins = cache_directory(context.environ) / "plugins"
        with suppress(errors.DeployerError):  # a home that cannot be written: then each environment downloads its own
            private_directory(plugins)
        environ = tofu_environment(context.environ, plugins)
        hidden = veil({**_options(spec), "before": [_options(one) for one in before]}, secrets_alone=True)
        return Tofu(engine.path, folder.tofu, spec.timeouts, replace(context, environ=environ), hidden)

    def _load(self, name: str) -> tuple[AnyEnvironment, Spec, EnvironmentFolder]:
        environment = self._repository.load(name)
        return environment, self._spec(environment), self._repository.folder(name)

    def _spec(self, environment: AnyEnvironment) -> Spec:
        try:
            return Spec.model_validate_json(json.dumps(environment.spec))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in ("spec", *first["loc"]))
            raise unreadable(self._repository.folder(environment.name), f"field {field}: {first['msg']}") from None


def _heard(report: Report) -> Report:
    """What happens to an environment does not depend on who listens: a report that fails is logged."""

    def hear(event: Event) -> None:
        try:
            report(event)
        except Exception:  # noqa: BLE001 - whatever it is
            log.exception("the report of the event %s failed", event.kind)

    return hear


def _options(spec: Spec) -> dict[str, object]:
    return {"provider": spec.provider.options, "hosts": {name: host.options for name, host in spec.hosts.items()}}
