"""The user's file to a validated specification, with file, line, field and a suggestion in every complaint.

Refuses to know states; looks at no other file than those the specification names.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue, ValidationError

from deployer.bundled import Kind, bundled
from deployer.config.complaints import Complaint, complaint, listed, spec_complaints, suggestion
from deployer.config.document import BadDocument, FieldPath, parse
from deployer.config.model import Spec, is_path
from deployer.errors import InvalidSpec
from deployer.events import printable

_Wrong: TypeAlias = tuple[FieldPath, str]
_LARGEST = 1024 * 1024  # bytes
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
    directory = Path(os.path.abspath(path)).parent
    try:
        document = parse(_read(path))
    except BadDocument as error:
        raise _refused(path, [(error.line, error.problem)]) from None
    try:
        spec = Spec.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        raise _refused(path, spec_complaints(error, document)) from None
    wrong = [*_machines(spec, directory, root("tofu")), *_files(spec, directory, root("playbooks"))]
    if wrong:
        raise _refused(path, [complaint(document, document.existing(field), problem) for field, problem in wrong])
    return LoadedSpec(spec, spec.model_dump(mode="json"), directory)


def located(directory: Path, name: str) -> Path:
    """Where a path of a specification leads: relative ones start from the file's folder, `~` is the user's home."""
    return directory / os.path.expanduser(name)


def _refused(path: Path, complaints: Iterable[Complaint]) -> InvalidSpec:
    file = printable(min(str(path), os.path.relpath(path), key=len))
    next_command = f"deployer validate -f {shlex.quote(file)}" if os.path.isfile(path) else "deployer init"
    return InvalidSpec(f"{file} cannot be used", complaints=listed(complaints, file), help=next_command)


def _read(path: Path) -> str:
    if problem := _unreadable(path):
        raise BadDocument(0, problem)
    with path.open("rb") as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise BadDocument(1, "the file is larger than 1 MiB")
    return content.decode(errors="surrogateescape")  # what is not UTF-8 is refused as no YAML, with its line


def _machines(spec: Spec, directory: Path, bundle: Path) -> Iterator[_Wrong]:
    """Whether the provider is there, and whether its hosts have what it needs."""
    provider, taken = spec.provider, dict[int, str]()
    known = sorted(path.name for path in bundle.glob("*") if _is_module(path))
    if provider.path is not None:
        folder = located(directory, provider.path)
        if not _is_module(folder):
            yield ("provider", "path"), f"no folder with *.tf or *.tofu files: {folder}"
    elif provider.title not in known:
        hint = f"{suggestion(provider.title, known)}; or give the path of a module"
        yield ("provider", "name"), f"no bundled provider {provider.title}; {hint}"
    for host, machine in spec.hosts.items():
        if provider.name == "existing" and machine.address is None:
            yield ("hosts", host), "the provider existing needs this host's address"
        for option in ("address", "port", "user"):
            if provider.name == "local" and getattr(machine, option) is not None:
                yield ("hosts", host, option), "only for machines that exist (provider: existing)"
        for here, _ in machine.forwards:
            if here and here in taken:
                problem = f"port {here} of this computer leads to {taken[here]} already; 0 takes any free port"
                yield ("hosts", host, "ports", str(here)), problem
            taken[here] = host


def _files(spec: Spec, directory: Path, bundle: Path) -> Iterator[_Wrong]:
    """Whether the playbooks and keys are there, and can be read."""
    files: list[tuple[FieldPath, str | None]] = [
        (("configure", "vault_password_file"), spec.configure.vault_password_file),
        (("ssh", "private_key"), spec.ssh.private_key),
    ]
    known = sorted(path.stem for path in bundle.glob("*.yml"))
    for index, entry in enumerate(spec.configure.playbooks):
        field: FieldPath = ("configure", "playbooks", index)
        if is_path(entry):
            files.append((field, entry))
        elif entry not in known:
            hint = f"{suggestion(entry, known)}; or give a path, as ./{entry}.yml"
            yield field, f"no bundled playbook {entry}; {hint}"
    for field, name in files:
        if name is not None and (problem := _unreadable(located(directory, name))):
            yield field, problem


def _unreadable(file: Path) -> str:
    try:
        if not file.is_file():
            return f"{'not a file' if file.exists() else 'no such file'}: {file}"
        with file.open("rb"):
            return ""
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"


def _is_module(folder: Path) -> bool:
    return any(path.name.endswith(_MODULE_SUFFIXES) for path in folder.glob("*"))
