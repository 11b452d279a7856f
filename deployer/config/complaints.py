"""What pydantic found wrong with a specification, as sentences with file, line and field.

Refuses to show a value that may be secret.
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from deployer.config.document import Node, Path
from deployer.config.model import NAME_PATTERN, Spec
from deployer.events import printable

_MOST = 25

_KINDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "literal_error": "false",
}
_EITHER = {
    "provider": "a provider's name, or a mapping with name or path",
    "ports": "a port number, or a list of port numbers",
    "cloud_init": "a mapping of cloud-config, or false",
}
_PATTERNS = {
    NAME_PATTERN: "may have a-z, 0-9 and hyphens only, with no hyphen at either end",
    r"^[^\x00-\x1f\x7f]+$": "must be one line without control characters",
    r"^[a-z_][a-z0-9_-]{0,31}$": "must be a login name: a-z, 0-9, _ and -, at most 32, no digit first",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "must be a variable's name: letters, digits and _, no digit first",
}


@dataclass(frozen=True)
class Complaint:
    """One thing wrong with one field. `line` is counted from 1."""

    line: int
    field: str
    problem: str

    def text(self, file: str) -> str:
        return f"{file}:{self.line}: {self.field + ': ' if self.field else ''}{self.problem}"


def listed(complaints: Iterable[Complaint], file: str) -> tuple[str, ...]:
    """One line for each, in the order of the file, no more than a person reads."""
    ordered = sorted(set(complaints), key=lambda c: (c.line, c.field))
    texts = [complaint.text(file) for complaint in ordered[:_MOST]]
    if len(ordered) > _MOST:
        texts.append(f"{file}: and {len(ordered) - _MOST} more")
    return tuple(texts)


def dotted(path: Path) -> str:
    """`hosts.web.ports.8080`; a list's index in brackets."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p[:60]}" for p in path).removeprefix(".")


def suggestion(wrong: str, known: Sequence[str]) -> str:
    """`did you mean X? known: X, Y, Z`; empty where nothing is known."""
    if not known:
        return ""
    close = difflib.get_close_matches(wrong.lower(), known, n=1, cutoff=0.6)
    return (f"did you mean {close[0]}? " if close else "") + "known: " + ", ".join(known)


def number_key_complaints(root: Node) -> Iterable[Complaint]:
    """JSON has text keys only: outside `ports`, a key 1 would silently become "1"."""
    for path, node in root.walk():
        if len(path) == 3 and path[0] == "hosts" and path[2] == "ports":
            continue
        for key in node.number_keys:
            yield Complaint(
                node.key_lines[key], dotted((*path, key)), f'the key is a number here; write "{key}" in quotes'
            )


def spec_complaints(error: ValidationError, root: Node) -> list[Complaint]:
    """Every finding once: what several members of a union say about one value becomes one sentence."""
    by_value: dict[Path, list[_Finding]] = {}
    for details in error.errors(include_url=False, include_input=False):
        finding = _Finding.of(details, root)
        by_value.setdefault(finding.union or finding.path, []).append(finding)
    complaints: list[Complaint] = []
    for findings in by_value.values():
        union = [f for f in findings if f.union is not None]
        # Some member of the union got further than the others: what it says is what the user meant.
        best = [f for f in union if f.path != f.union or f.kind not in _KINDS]
        if len(union) > 1 and not best:
            best = union[:1]
        chosen = [*(f for f in findings if f.union is None), *best]
        complaints += [f.complaint(root) for f in chosen]
    return complaints


@dataclass(frozen=True)
class _Finding:
    """A pydantic error brought back to the file: `path` exists there, `name` (of a missing field) does not."""

    kind: str
    path: Path
    union: Path | None
    name: str
    is_key: bool
    context: Mapping[str, Any]

    @classmethod
    def of(cls, details: Mapping[str, Any], root: Node) -> _Finding:
        loc: list[str | int] = list(details["loc"])
        kind = str(details["type"])
        is_key = bool(loc) and loc[-1] == "[key]"
        if is_key:
            loc.pop()
        name = str(loc.pop()) if kind == "missing" else ""
        path: Path = ()
        union: Path | None = None
        node = root
        for part in loc:
            found = node.step(part)
            if found is None:  # the name of a union's member, or a field that stands for its mapping
                union = path if union is None else union
                continue
            path, node = (*path, part), found
        return cls(kind, path, union, name, is_key, details.get("ctx") or {})

    def complaint(self, root: Node) -> Complaint:
        shown = (*self.path, self.name) if self.name else self.path
        return Complaint(root.line_of(self.path), dotted(shown), self._problem(root))

    def _problem(self, root: Node) -> str:  # noqa: PLR0911 - a table of cases
        kind, ctx = self.kind, self.context
        node = root
        for part in self.path:
            node = node.step(part) or node
        last = str(self.path[-1]) if self.path else ""
        if kind == "missing":
            return f"this field is required: {_description(self.path, self.name)}"
        if kind == "extra_forbidden":
            return f"unknown field; {suggestion(last, _known(self.path[:-1]))}"
        if kind == "value_error":
            return str(ctx.get("error"))
        subject = "the key " if self.is_key else ""
        value = last if self.is_key else node.value
        if kind in _KINDS:
            expected = _KINDS[kind] if self.is_key else self._expected()
            if self.is_key:
                return f"the key must be {expected}"
            hint = "; write {} for all defaults" if node.value is None and kind in ("model_type", "dict_type") else ""
            return f"must be {expected}, not {_kind_of(node)}{hint}"
        if kind in ("less_than_equal", "greater_than_equal"):
            limit = "at most" if kind == "less_than_equal" else "at least"
            return f"{subject}must be {limit} {ctx['le' if 'le' in ctx else 'ge']}, not {str(value)[:30]}"
        if kind == "string_pattern_mismatch":
            rule = _PATTERNS.get(str(ctx["pattern"]), f"must match {ctx['pattern']}")
            return f"{_quoted(value)} {rule}"
        if kind == "string_too_long":
            return f"{_quoted(value)} has {len(str(value))} characters; at most {ctx['max_length']} are allowed"
        if kind == "string_too_short":
            return "must not be empty"
        if kind == "too_short":
            return f"at least {ctx['min_length']} is needed"
        return f"cannot be used ({kind.replace('_', ' ')})"

    def _expected(self) -> str:
        # `provider` is a union too, but one that the model makes itself.
        about = self.path[-2:] if self.union is not None else tuple(p for p in self.path[-1:] if p == "provider")
        return next((_EITHER[str(part)] for part in about if str(part) in _EITHER), _KINDS[self.kind])


def _quoted(value: object) -> str:
    text = printable(str(value))
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)


def _kind_of(node: Node) -> str:
    value = node.value
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    kinds = {dict: "a mapping", list: "a list", str: "a text", int: "a number", float: "a number with a fraction"}
    return kinds[type(value)]


def _known(path: Path) -> tuple[str, ...]:
    model = _model_at(path)
    return tuple(model.model_fields) if model else ()


def _description(path: Path, name: str) -> str:
    model = _model_at(path)
    field = model.model_fields.get(name) if model else None
    return field.description or name if field else name


def _model_at(path: Path) -> type[BaseModel] | None:
    model: type[BaseModel] | None = Spec
    names = iter(path)
    for part in names:
        field = model.model_fields.get(str(part)) if model else None
        if field is None:
            return None
        model = next(models_in(field.annotation), None)
        if typing.get_origin(field.annotation) is dict:
            next(names, None)  # the key of a mapping of models: a host's name
    return model


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a field's type: those of its values, of its list's items, of its union's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)
