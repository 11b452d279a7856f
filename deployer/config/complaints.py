"""What pydantic found wrong with a specification, as sentences with file, line and field.

Refuses to show a value that may be secret.
"""

from __future__ import annotations

import difflib
import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from deployer.config.document import Document, FieldPath
from deployer.config.model import NAME_PATTERN, Spec
from deployer.events import printable

_MOST = 25

# By pydantic's names. A pattern's rule is in _PATTERNS; "kind" is the model's own.
_PROBLEMS = {
    "missing": "this field is required: {description}",
    "extra_forbidden": "unknown field; {suggestion}",
    "value_error": "{error}",
    "kind": "{message}, not {kind}",
    "int_type": "must be a whole number, not {kind}",
    "int_parsing": "must be a whole number",
    "string_type": "must be a text, not {kind}",
    "bool_type": "must be true or false, not {kind}",
    "tuple_type": "must be a list, not {kind}",
    "dict_type": "must be a mapping, not {kind}",
    "model_type": "must be a mapping, not {kind}",
    "less_than_equal": "must be at most {le}, not {input:.30}",
    "greater_than_equal": "must be at least {ge}, not {input:.30}",
    "string_pattern_mismatch": "{quoted} {rule}",
    "string_too_long": "{quoted} has {length} characters; at most {max_length} are allowed",
    "string_too_short": "must not be empty",
    "too_short": "at least {min_length} is needed",
}
_PATTERNS = {
    NAME_PATTERN: "may have a-z, 0-9 and hyphens only, with no hyphen at either end",
    r"^[^\x00-\x1f\x7f]+$": "must be one line without control characters",
    r"^[a-z_][a-z0-9_-]{0,31}$": "must be a login name: a-z, 0-9, _ and -, at most 32, no digit first",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "must be a variable's name: letters, digits and _, no digit first",
}


class Complaint(NamedTuple):
    """One thing wrong with one field. `line` is counted from 1, or 0 for the file as a whole."""

    line: int
    field: str
    problem: str


def listed(complaints: Iterable[Complaint], file: str) -> tuple[str, ...]:
    """One line for each, in the order of the file, no more than a person reads."""
    texts = [
        ": ".join(filter(None, (f"{file}:{line}" if line else file, field, problem)))
        for line, field, problem in sorted(set(complaints))
    ]
    more = [f"{file}: and {len(texts) - _MOST} more"] if len(texts) > _MOST else []
    return (*texts[:_MOST], *more)


def dotted(path: FieldPath) -> str:
    """`hosts.web.ports.8080`; a list's index in brackets."""
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p[:60]}" for p in path).removeprefix(".")


def suggestion(wrong: str, known: Sequence[str]) -> str:
    """`did you mean X? known: X, Y, Z`."""
    close = difflib.get_close_matches(wrong.lower(), known, n=1, cutoff=0.6)
    return (f"did you mean {close[0]}? " if close else "") + "known: " + ", ".join(known)


def number_key_complaints(document: Document) -> Iterator[Complaint]:
    """JSON has text keys only: outside `ports`, a key 1 would silently become "1"."""
    for path in document.number_keys:
        if not (len(path) == 4 and path[0] == "hosts" and path[2] == "ports"):
            problem = f'the key is a number here; write "{path[-1]}" in quotes'
            yield Complaint(document.lines[path], dotted(path), problem)


def spec_complaints(error: ValidationError, document: Document) -> Iterator[Complaint]:
    """Every finding, brought back to the file."""
    for found in error.errors(include_url=False):
        # Not in the file: a missing field, the member of a union, `[key]`, `name` where a text stands for a mapping.
        path = document.existing(found["loc"])
        field = (*path, *found["loc"][-1:]) if found["type"] == "missing" else path
        yield Complaint(document.lines[path], dotted(field), _problem(found, field))


def _problem(found: Mapping[str, Any], field: FieldPath) -> str:
    value, context = found["input"], found.get("ctx", {})
    fields, last = _model_at(field[:-1]).model_fields, str(("", *field)[-1])
    text = _PROBLEMS.get(found["type"], "cannot be used").format(
        **context,
        description=getattr(fields.get(last), "description", ""),
        suggestion=suggestion(last, list(fields)),
        message=found["msg"],
        kind=_kind_of(value),
        input=str(value),
        quoted=_quoted(str(value)),
        length=len(str(value)),
        rule=_PATTERNS.get(str(context.get("pattern"))),
    )
    if value is None and found["type"] in ("model_type", "dict_type"):
        return f"{text}; write {{}} for all defaults"
    return f"the key {text}" if found["loc"][-1:] == ("[key]",) and text.startswith("must") else text


def _quoted(text: str) -> str:
    text = printable(text)
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=False)


def _kind_of(value: Any) -> str:
    numbers = {int: "a number", float: "a number with a fraction"}
    kinds = {dict: "a mapping", list: "a list", str: "a text", type(None): "empty", **numbers}
    return kinds.get(type(value), str(value).lower())  # true, false


def _model_at(path: FieldPath) -> type[BaseModel]:
    model: type[BaseModel] = Spec
    for part in path:  # the name of a host is no field, and leaves us where we are
        if field := model.model_fields.get(str(part)):
            model = next(models_in(field.annotation), model)
    return model


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a field's type: those of its values, of its list's items, of its union's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)
