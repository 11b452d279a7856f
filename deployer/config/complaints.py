"""What pydantic found wrong with a specification, as sentences with file, line and field.

Refuses to show a value: it may be secret.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from deployer.config.document import Document, FieldPath
from deployer.config.model import Spec
from deployer.events import printable

Complaint: TypeAlias = tuple[int, str]  # the line, counted from 1 (0: the file as a whole), and what is wrong there


def listed(complaints: Iterable[Complaint], file: str) -> list[str]:
    """One line for each, in the order of the file."""
    return [
        printable(f"{file}:{line}: {text}" if line else f"{file}: {text}") for line, text in sorted(set(complaints))
    ]


def complaint(document: Document, path: FieldPath, problem: str) -> Complaint:
    """A problem at the place of the file that `path` means; a list's index in brackets, as `playbooks[1]`."""
    line = document.lines[document.existing(path)]
    field = "".join(f"[{p}]" if isinstance(p, int) else f".{p[:60]}" for p in path).removeprefix(".")
    return line, f"{field}: {problem}" if field else problem


def suggestion(wrong: str, known: Sequence[str]) -> str:
    """`did you mean X? known: X, Y, Z`."""
    close = difflib.get_close_matches(wrong.lower(), known, n=1, cutoff=0.6)
    return (f"did you mean {close[0]}? " if close else "") + "known: " + ", ".join(known)


def spec_complaints(error: ValidationError, document: Document) -> Iterator[Complaint]:
    """Every finding, brought back to the file: pydantic's sentence, and what the field means."""
    for found in error.errors(include_url=False, include_input=False):
        # Not in the file: a missing field, the member of a union, `[key]`, `name` where a text stands for a mapping.
        path = document.existing(found["loc"])
        field = (*path, *found["loc"][-1:]) if found["type"] == "missing" else path
        model, meaning = _field_at(field)
        problem = f"{found['msg']} ({meaning.rstrip('.')})" if meaning else found["msg"]
        if found["type"] == "extra_forbidden":
            problem = f"unknown field; {suggestion(str(path[-1]), list(model.model_fields))}"
        yield complaint(document, field, problem)


def _field_at(path: FieldPath) -> tuple[type[BaseModel], str]:
    """The innermost model on the way to a field, and what the innermost field means that has a description."""
    model: type[BaseModel] = Spec
    meaning = ""
    for part in path:  # the name of a host is no field, and leaves us where we are
        if field := model.model_fields.get(str(part)):
            meaning = field.description or ""
            model = next(models_in(field.annotation), model)
    return model, meaning


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models within a field's type: those of its values, of its list's items, of its union's members."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)
