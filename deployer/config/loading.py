"""The user's file to a validated specification, with file, line, field and a suggestion in every complaint.

With what changed between two specifications that were accepted. Refuses to know states, and to show a value, which may
be secret. Looks at no other file than those the specification names.
"""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

from deployer.bundled import Kind, bundled
from deployer.config.document import BadDocument, Document, FieldPath, parse
from deployer.config.model import LoadedSpec, Machine, Spec, is_path
from deployer.errors import InvalidSpec
from deployer.events import printable
from deployer.files import unkept, word

_Wrong: TypeAlias = tuple[FieldPath, str]  # a place in the file, and what is wrong there
_LARGEST = 1024 * 1024  # bytes
MODULE_SUFFIXES = (".tf", ".tofu", ".tf.json", ".tofu.json")
_OUR_VARIABLES = {"environment", "hosts", "ssh_public_key", "user_data"}  # what every module is given
_ANSIBLES = ("all", "ungrouped", "localhost", "_meta")  # which mean something to Ansible
# These may be a password or a token, or hold one: told is only that they changed.
_HIDDEN = ("configure.variables.*", "provider.options.*", "cloud_init.*", "hosts.*.options.*")


# What pydantic's own sentences say in the terms of a programmer.
_WORDS = {
    **dict.fromkeys(("model_type", "dict_type"), "must be a mapping"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing"), "must be a whole number, without quotes or a unit"),
    "string_type": "must be a text; put a number, yes or no in quotes",
    **dict.fromkeys(("string_pattern_mismatch", "string_too_long"), "cannot be used as it is"),
    "too_short": "must not be empty",
    "missing": "is missing",
}


def load_spec(path: Path, *, root: Callable[[Kind], Path] = bundled) -> LoadedSpec:
    """Reads and checks a configuration file and the files it names; `root` says where bundled things lie.

    Raises InvalidSpec with one complaint for each thing wrong, in the order of the file.
    """
    try:
        document = parse(_read(path))
    except BadDocument as error:
        raise _refused(path, [(error.line, error.problem)]) from None
    directory = Path(os.path.realpath(path.parent))  # the same, whichever link led there
    if problem := unkept(directory / path.name):
        raise _refused(path, [(0, problem)])
    try:
        spec = Spec.model_validate_json(json.dumps(document.data), context=directory)
    except ValidationError as error:
        found = dict(reversed([*_misfits(error, document)]))  # of each field the first: a union has one for each member
        raise _refused(path, _lines(document, found.items())) from None
    # A state, which also has hosts and steps, may be larger.
    if len(spec.model_dump_json(indent=2).encode()) > _LARGEST:
        raise _refused(path, [(0, "more than 1 MiB, with aliases expanded and defaults filled in")])
    if wrong := [*_machines(spec, root("tofu")), *_groups(spec), *_files(spec, root("playbooks"))]:
        raise _refused(path, _lines(document, [(document.existing(field), problem) for field, problem in wrong]))
    return LoadedSpec(spec, spec.model_dump(mode="json"), directory / path.name)


def _refused(path: Path, found: Iterable[tuple[int, str]]) -> InvalidSpec:
    """With a complaint of one line for each thing found, in the order of the file; line 0 means the file as a whole."""
    file = printable(min(str(path), os.path.relpath(path), key=len))
    told = [printable(f"{file}:{line}: {text}" if line else f"{file}: {text}") for line, text in sorted(set(found))]
    near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.y*ml")], n=1, cutoff=0.8)
    meant = file if os.path.isfile(path) else os.path.join(os.path.dirname(file), near[0]) if near else ""
    next_command = f"deployer validate {word(meant)}" if meant else "deployer init"
    return InvalidSpec(f"{file} cannot be used", complaints=told, help=next_command)


def _lines(document: Document, wrong: Iterable[_Wrong]) -> Iterator[tuple[int, str]]:
    """The complaints with their lines; a list's index is in brackets, as `playbooks[1]`."""
    for path, problem in wrong:
        field = "".join(f"[{p}]" if isinstance(p, int) else f".{p[:60]}" for p in path).removeprefix(".")
        yield document.lines[document.existing(path)], f"{field}: {problem}" if field else problem


def _misfits(error: ValidationError, document: Document) -> Iterator[_Wrong]:
    """Every finding of pydantic's, brought back to the file: its sentence, and what the field means."""
    for found in error.errors(include_url=False, include_input=False):
        # Not in the file: a missing field, the member of a union, `[key]`, `name` where a text stands for a mapping.
        path = document.existing(found["loc"])
        field = (*path, *found["loc"][-1:]) if found["type"] == "missing" else path
        model, meaning = _field_at(field)
        said = _WORDS.get(found["type"]) or found["msg"].replace("Input should be", "must be")
        problem = f"{said} ({meaning.rstrip('.')})" if meaning else said
        if found["type"] == "extra_forbidden":
            problem = f"unknown field; {_suggestion(str(path[-1]), list(model.model_fields))}"
        yield field, problem


def _field_at(path: FieldPath) -> tuple[type[BaseModel], str]:
    """The innermost model on the way to a field, and what the innermost field means that has a description."""
    model: type[BaseModel] = Spec
    meaning = "of `name`, `hosts` and so on; see deployer init"
    for before, part in zip(("", *path), path, strict=False):
        # The name of a host is no field, whatever it is called, and leaves us where we are.
        if before != "hosts" and (field := model.model_fields.get(str(part))):
            meaning = field.description or ""
            model = next(models_in(field.annotation), model)
    return model, meaning


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a field's type: those of its values, of its list's items, of its union's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def _read(path: Path) -> str:
    if problem := _unreadable(path):
        raise BadDocument(0, problem)
    with path.open("rb") as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise BadDocument(1, "the file is larger than 1 MiB")
    return content.decode(errors="surrogateescape")  # what is not UTF-8 is refused as no YAML, with its line


def _machines(spec: Spec, bundle: Path) -> Iterator[_Wrong]:
    """Whether the provider is there, hosts have names and fields that will do, and no option replaces what we give."""
    provider, taken = spec.provider, dict[int, str]()
    known = sorted(path.name for path in bundle.glob("*") if _is_module(path))
    if provider.path is not None:
        if not _is_module(Path(provider.path)):
            yield ("provider", "path"), f"no folder with *.tf or *.tofu files: {provider.path}"
    elif provider.title not in known:
        hint = f"{_suggestion(provider.title, known)}; or give the path of a module"
        yield ("provider", "name"), f"no bundled provider {provider.title}; {hint}"
    for option in provider.options.keys() & _OUR_VARIABLES:
        yield ("provider", "options", option), "deployer gives the module this variable itself"
    for host, machine in spec.hosts.items():
        if host in _ANSIBLES:
            yield ("hosts", host), "Ansible has a meaning of its own for this name; give the host another"
        for option in machine.options.keys() & Machine.model_fields.keys():
            yield ("hosts", host, "options", option), f"this is a field of its own: hosts.{host}.{option}"
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


def _groups(spec: Spec) -> Iterator[_Wrong]:
    """Whether Ansible can tell the user's groups from hosts, from our groups, and from its own."""
    for host, machine in spec.hosts.items():
        for index, group in enumerate(machine.groups):
            if group in (*_ANSIBLES, *spec.hosts) or group.startswith("env_"):
                yield ("hosts", host, "groups", index), "no name for a group: a host's, Ansible's own, or env_..."


def _suggestion(wrong: str, known: Sequence[str]) -> str:
    """`did you mean X? known: X, Y, Z`."""
    close = difflib.get_close_matches(wrong.lower(), known, n=1, cutoff=0.6)
    return (f"did you mean {close[0]}? " if close else "") + "known: " + ", ".join(known)


def _files(spec: Spec, bundle: Path) -> Iterator[_Wrong]:
    """Whether the playbooks and keys are there, and can be read."""
    files: list[tuple[FieldPath, str | None]] = [(("ssh", "private_key"), spec.ssh.private_key)]
    files.append((("configure", "vault_password_file"), spec.configure.vault_password_file))
    known = sorted(path.stem for path in bundle.glob("*.yml"))
    for index, entry in enumerate(spec.configure.playbooks):
        field: FieldPath = ("configure", "playbooks", index)
        if is_path(entry):
            files.append((field, entry))
        elif entry not in known:
            yield field, f"no bundled playbook {entry}; {_suggestion(entry, known)}; or give a path, as ./{entry}.yml"
    if re.search(r"\{[{%#]|\$\{", spec.ssh.private_key or ""):
        yield ("ssh", "private_key"), "its path has braces that Ansible or ssh would evaluate"
    for field, name in files:
        if name is not None and (problem := _unreadable(Path(name))):
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
    return any(path.name.endswith(MODULE_SUFFIXES) for path in folder.glob("*"))


def spec_changes(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    """Lines as `hosts.web.memory: 1024 -> 2048`, in the order of the specification; empty where nothing changed."""
    return tuple(printable(line) for line in _changes("", old, new))


def _changes(prefix: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        where, before, after = prefix + key, old.get(key), new.get(key)
        hidden = any(fnmatchcase(where, pattern) for pattern in _HIDDEN)
        if key not in new:
            yield f"{where}: removed"
        elif isinstance(before, Mapping) and isinstance(after, Mapping) and not hidden:
            yield from _changes(f"{where}.", before, after)
        elif _text(before) != _text(after):
            untold = hidden or isinstance(before, Mapping) or isinstance(after, Mapping)
            what = "changed" if key in old else "added"
            yield f"{where}: {what}" if untold else f"{where}: {_text(before)} -> {_text(after)}"


def _text(value: object) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
