"""The type-erased environment: the exact encoding of any state to JSON, and back to its class. Knows no disk."""

from __future__ import annotations

from typing import get_args

from pydantic import TypeAdapter, ValidationError

from deployer.environment.states import AnyEnvironment, Environment
from deployer.events import printable

_ANY: TypeAdapter[AnyEnvironment] = TypeAdapter(AnyEnvironment)
STATES: tuple[str, ...] = tuple(cls.model_fields["state"].default for cls in get_args(get_args(AnyEnvironment)[0]))


class NotAnEnvironment(ValueError):
    """A text is no environment: `field` names the place (empty: the whole text), `problem` says what is wrong there."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"field {field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


def encode(environment: Environment) -> str:
    """The environment as JSON, complete: `restore` gives back an equal object of the same class."""
    return environment.model_dump_json(indent=2) + "\n"


def restore(text: bytes | str) -> AnyEnvironment:
    """The environment that `encode` wrote, in its very class.

    Raises NotAnEnvironment for anything else: unknown states, unknown or missing fields, wrong types, broken JSON.
    """
    try:
        return _ANY.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # The first part is the state by which the class was chosen; where that fails there is none.
        place = ("state",) if first["type"].startswith("union_tag") else first["loc"][1:]
        raise NotAnEnvironment(".".join(map(str, place)), printable(first["msg"])[:500]) from None
