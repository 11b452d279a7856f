"""The user's file to a validated specification, with file, line, field and a suggestion in every complaint.

Refuses to know states; looks at no other file than those the specification names.
"""

from __future__ import annotations

import difflib
import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from deployer.bundled import Kind, bundled
from deployer.config.complaints import Complaint, dotted, listed, number_key_complaints, spec_complaints, suggestion
from deployer.config.document import LARGEST, BadDocument, Node, parse
from deployer.config.document import Path as FieldPath
from deployer.config.model import Spec, is_path
from deployer.errors import InvalidSpec
from deployer.events import printable

_MODULE_SUFFIXES = (".tf", ".tofu", ".tf.json", ".tofu.json")


@dataclass(frozen=True)
class LoadedSpec:
    """A specification that was accepted, the same as JSON-ready data, and the folder its relative paths start from."""

    spec: Spec
    data: dict[str, JsonValue]
    directory: Path


def load_spec(path: Path, *, root: Callable[[Kind], Path] = bundled) -> LoadedSpec:
    """Reads and checks a configuration file and the files it names; `root` says where bundled things lie.

    Raises InvalidSpec with one complaint for each thing wrong, in the order of the file.
    """
    file = _shown(path)
    directory = Path(os.path.abspath(path)).parent
    try:
        document = parse(_read(path, file))
    except BadDocument as error:
        raise _refused(file, [Complaint(error.line, "", printable(error.problem))]) from None
    complaints = list(number_key_complaints(document))
    try:
        spec = Spec.model_validate_json(json.dumps(document.data()))
    except ValidationError as error:
        raise _refused(file, [*complaints, *spec_complaints(error, document)]) from None
    complaints += _Named(spec, document, directory, root).complaints()
    if complaints:
        raise _refused(file, complaints)
    return LoadedSpec(spec, spec.model_dump(mode="json"), directory)


def bundled_playbooks(root: Callable[[Kind], Path] = bundled) -> tuple[str, ...]:
    """The names of the playbooks that ship with deployer."""
    return tuple(path.stem for path in _yaml_files(root("playbooks")))


def bundled_providers(root: Callable[[Kind], Path] = bundled) -> tuple[str, ...]:
    """The names of the providers that ship with deployer."""
    return tuple(path.name for path in _entries(root("tofu")) if _is_module(path))


def located(directory: Path, name: str) -> Path:
    """Where a path of a specification leads: relative ones start from the file's folder, `~` is the user's home."""
    return directory / os.path.expanduser(name)


def _shown(path: Path) -> str:
    """The file as people name it: from where they stand, if it lies below."""
    try:
        return printable(str(path.relative_to(Path.cwd()) if path.is_absolute() else path))
    except (ValueError, OSError):
        return printable(str(path))


def _refused(file: str, complaints: Iterable[Complaint]) -> InvalidSpec:
    return _invalid(file, listed(complaints, file))


def _invalid(file: str, texts: Sequence[str], help: str = "") -> InvalidSpec:
    return InvalidSpec(
        f"{file} cannot be used",
        complaints=texts,
        remains="Nothing was changed.",
        help=help or f"deployer validate -f {shlex.quote(file)}",
    )


def _read(path: Path, file: str) -> str:
    try:
        if path.exists() and not path.is_file():
            raise _invalid(file, [f"{file}: not a regular file"], help="deployer init")
        with path.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except FileNotFoundError:
        close = difflib.get_close_matches(path.name, [p.name for p in _yaml_files(path.parent)], n=1, cutoff=0.8)
        hint = f"; did you mean {_shown(path.with_name(close[0]))}?" if close else ""
        raise _invalid(file, [f"{file}: no such file{hint}"], help="deployer init") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a file name"
        raise _invalid(file, [f"{file}: cannot be read: {reason}"]) from None
    if len(content) > LARGEST:
        raise BadDocument(1, "the file is larger than 1 MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadDocument(line, f"not UTF-8: byte {content[error.start]:#04x}; save the file as UTF-8") from None


@dataclass(frozen=True)
class _Named:
    """The things outside the file that a valid specification names, and whether they are there."""

    spec: Spec
    document: Node
    directory: Path
    root: Callable[[Kind], Path]

    def complaints(self) -> list[Complaint]:
        configure = self.spec.configure
        found = [self._provider(), *self._addresses(), *self._ports()]
        found += [self._playbook(i, entry) for i, entry in enumerate(configure.playbooks)]
        found.append(self._readable(("configure", "vault_password_file"), configure.vault_password_file))
        found.append(self._readable(("ssh", "private_key"), self.spec.ssh.private_key))
        return [complaint for complaint in found if complaint is not None]

    def _complaint(self, path: FieldPath, problem: str) -> Complaint:
        return Complaint(self.document.line_of(path), dotted(path), printable(problem))

    def _provider(self) -> Complaint | None:
        provider = self.spec.provider
        if provider.name is not None:
            known = bundled_providers(self.root)
            is_short = isinstance((self.document.step("provider") or self.document).value, str)
            path = ("provider",) if is_short else ("provider", "name")
            if provider.name in known:
                return None
            problem = (
                f"no bundled provider {provider.name}; {suggestion(provider.name, known)}; or give the path of a module"
            )
            return self._complaint(path, problem)
        folder = located(self.directory, str(provider.path))
        if not folder.is_dir():
            return self._complaint(("provider", "path"), f"no folder {folder}")
        if not _is_module(folder):
            return self._complaint(("provider", "path"), f"no *.tf or *.tofu file in {folder}")
        return None

    def _addresses(self) -> Iterable[Complaint]:
        name = self.spec.provider.name
        for host, machine in self.spec.hosts.items():
            if name == "existing" and machine.address is None:
                yield self._complaint(("hosts", host), "the provider existing needs this host's address")
            for field in ("address", "port", "user"):
                if name == "local" and getattr(machine, field) is not None:
                    yield self._complaint(("hosts", host, field), "only for machines that exist (provider: existing)")

    def _ports(self) -> Iterable[Complaint]:
        taken: dict[int, str] = {}
        for host, machine in self.spec.hosts.items():
            for forward in machine.forwards:
                if forward.host and (other := taken.setdefault(forward.host, host)) != host:
                    problem = f"port {forward.host} of this computer leads to {other} already; 0 takes any free port"
                    yield self._complaint(("hosts", host, "ports", str(forward.host)), problem)

    def _playbook(self, index: int, entry: str) -> Complaint | None:
        path = ("configure", "playbooks", index)
        if is_path(entry):
            return self._readable(path, entry)
        known = bundled_playbooks(self.root)
        if entry in known:
            return None
        here = [p.name for p in _yaml_files(self.directory) if p.stem == entry]
        hint = f"; did you mean ./{here[0]}?" if here else f"; {suggestion(entry, known)}"
        return self._complaint(path, f"no bundled playbook {entry}{hint}")

    def _readable(self, path: FieldPath, name: str | None) -> Complaint | None:
        if name is None:
            return None
        target = located(self.directory, name)
        try:
            if not target.exists():
                return self._complaint(path, f"no such file: {target}")
            if not target.is_file():
                return self._complaint(path, f"not a file: {target}")
            with target.open("rb"):
                return None
        except OSError as error:
            return self._complaint(path, f"{target} cannot be read: {error.strerror}")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _yaml_files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix in (".yml", ".yaml")]


def _is_module(folder: Path) -> bool:
    return any(path.name.endswith(_MODULE_SUFFIXES) for path in _entries(folder))
