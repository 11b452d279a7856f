"""The half of the library that changes no environment: reading needs no lock, and no tool but where it says so."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from deployer.app.overview import Overview, overview
from deployer.config.model import EXAMPLE, LoadedSpec, Spec, schema
from deployer.environment import AnyEnvironment
from deployer.errors import InvalidInput, UnreadableState, WrongState
from deployer.events import Report, ignore
from deployer.process import Interrupts
from deployer.storage.folder import HOME_NAME, EnvironmentFolder, find_home, private_directory, storage_failed
from deployer.storage.repository import FileRepository, unreadable
from deployer.workflows.advice import next_commands

if TYPE_CHECKING:
    from deployer.app.doctor import Check
    from deployer.tofu.engine import Tofu
    from deployer.workflows.run import Session


class Reading:
    """What `Deployer` can tell. What is slow to import is imported where it is used: `list` and `show` do without."""

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
        self._interrupts = interrupts or Interrupts()
        self._lock_timeout = lock_timeout
        self._repository = FileRepository(self.home)

    def status(self, name: str) -> str:
        """The state's name. Raises UnknownEnvironment, UnreadableState."""
        return self._repository.load(name).state

    def list(self) -> tuple[Overview, ...]:
        """All environments; one that cannot be read is there too, with its problem."""
        found: list[Overview] = []
        for name in self._repository.names():
            try:
                found.append(self.show(name))
            except UnreadableState as error:
                found.append(Overview(name=name, problem=error.detail))
        return tuple(found)

    def show(self, name: str, *, refresh: bool = False) -> Overview:
        """All there is to know; with `refresh` also how it compares with reality. Raises UnreadableState."""
        environment, spec, folder = self._load(name)
        reality: tuple[str, ...] = ()
        if refresh:
            from deployer.app.reality import compare

            reality = compare(
                environment,
                self._tofu(folder, spec),
                folder.known_hosts,
                environ=self._environ,
                interrupts=self._interrupts,
            )
        return overview(environment, spec, folder, self._repository.holder(name), reality)

    def inventory(self, name: str | None = None) -> dict[str, object]:
        """Ansible's dynamic inventory of one environment, or of all that have hosts. Raises UnreadableState."""
        from deployer.ansible.inventory import inventory_data
        from deployer.workflows.configure import inventory_environment

        loaded = [self._load(n) for n in ((name,) if name else self._repository.names())]
        return inventory_data([inventory_environment(*found) for found in loaded if found[0].hosts])

    def ssh_command(self, name: str, host: str | None = None, command: Sequence[str] = ()) -> tuple[str, ...]:
        """The argv that opens a session on a host, or runs `command` there. Raises WrongState without hosts."""
        from deployer.remote.ssh import ssh_argv
        from deployer.workflows.hosts import targets

        environment, spec, folder = self._load(name)
        if not environment.hosts:
            message, detail = f"environment {name} has no hosts to log in to", f"its state is {environment.state}"
            raise WrongState(message, detail=detail, help=next_commands(environment)[0])
        chosen = host or (next(iter(environment.hosts)) if len(environment.hosts) == 1 else "")
        if chosen not in environment.hosts:
            raise InvalidInput(
                f"environment {name} has no host {host}" if host else f"environment {name} has several hosts",
                detail=f"its hosts are {', '.join(environment.hosts)}",
                help=f"deployer ssh {name} {next(iter(environment.hosts))}",
            )
        (target,) = (target for target in targets(environment, spec, folder) if target.name == chosen)
        return ssh_argv(target, *command, interactive=not command)

    def init(self, directory: Path) -> Path:
        """Makes a home and a commented example in `directory`. Raises InvalidInput where the file is there already."""
        folder = (self._cwd / directory).absolute()
        path = folder / EXAMPLE.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(EXAMPLE.read_text(encoding="utf-8"))
        except FileExistsError:
            detail = "init writes a new file only, and left it as it is"
            raise InvalidInput(f"{path} exists already", detail=detail, help=f"deployer validate -f {path}") from None
        except OSError as error:
            raise storage_failed("cannot write", path, error) from error
        private_directory(folder / HOME_NAME)
        (folder / HOME_NAME / "schema.json").write_text(json.dumps(schema(), indent=2), encoding="utf-8")
        return path

    def validate(self, file: Path) -> Spec:
        """Raises InvalidSpec, with one complaint for each thing wrong."""
        return self._accept(file).spec

    def doctor(self, *, install: bool = False) -> tuple[Check, ...]:
        """Every tool and circumstance, each with what to type where it is missing."""
        from deployer.app.doctor import examine

        return examine(self._environ, self._interrupts, self._report, install=install)

    def _tofu(self, folder: EnvironmentFolder, spec: Spec, session: Session | None = None) -> Tofu:
        from deployer.tofu.engine import Tofu, cache_directory, find_engine, tofu_environment

        engine = find_engine(self._environ, interrupts=self._interrupts)
        plugins = private_directory(cache_directory(self._environ) / "plugins")
        env, limits, interrupts = tofu_environment(self._environ, plugins), spec.timeouts, self._interrupts
        report, held = (session.report, session.held) if session else (ignore, None)
        return Tofu(
            engine.path, folder.tofu, env=env, limits=limits, interrupts=interrupts, report=report, register=held
        )

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

    def _accept(self, file: Path) -> LoadedSpec:
        from deployer.config.loading import load_spec

        return load_spec(self._cwd / file)
