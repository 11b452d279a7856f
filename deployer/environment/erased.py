"""The type-erased environment: the exact encoding of any state to JSON, and back to its class. Knows no disk."""

from __future__ import annotations

from typing import get_args

from pydantic import ValidationError
from pydantic_core import from_json

from deployer.environment.states import AnyEnvironment, Environment

_CLASSES: dict[str, type[Environment]] = {
    cls.model_fields["state"].default: cls for cls in get_args(get_args(AnyEnvironment)[0])
}
STATES = tuple(_CLASSES)


class NotAnEnvironment(ValueError):
    """A text is no environment: `field` names the place (empty: the whole text), `problem` says what is wrong there."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


def encode(environment: Environment) -> str:
    """The environment as JSON, complete: `restore` gives back an equal object of the same class."""
    return environment.model_dump_json(indent=2) + "\n"


def restore(text: bytes | str) -> AnyEnvironment:
    """The environment that `encode` wrote.

    The class is chosen by `state` and only that one is built, which is why this is quicker than validating the union.
    Raises NotAnEnvironment for anything else: unknown states, unknown or missing fields, wrong types, broken JSON.
    """
    try:
        data = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise NotAnEnvironment("", f"not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise NotAnEnvironment("", "not a JSON object")
    state = data.get("state")
    if not isinstance(state, str) or state not in _CLASSES:
        shown = "missing" if state is None else f"{str(state)[:60]!r} is no state that deployer knows"
        raise NotAnEnvironment("state", shown)
    try:
        return _CLASSES[state].model_validate_json(text)  # type: ignore[return-value]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise NotAnEnvironment(".".join(str(part) for part in first["loc"]), first["msg"]) from None
