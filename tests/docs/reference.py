"""docs/configuration.md, made from the models themselves. `python -m tests.docs.reference` writes it anew."""

from __future__ import annotations

import json
import typing
from typing import Any

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from deployer.config.loading import models_in
from deployer.config.model import EXAMPLE, Machine, Provider, Spec
from tests.docs.pages import CHECKOUT

PAGE = CHECKOUT / "docs" / "configuration.md"


def configuration_reference() -> str:
    """docs/configuration.md: every field with its type, default and meaning, from the models themselves."""
    parts = [_INTRODUCTION, *_section("Top level", Spec)]
    for path, field in Spec.model_fields.items():
        model = next(models_in(field.annotation), None)
        if model is not None:
            shown = f"{path}.NAME" if model is Machine else path
            parts += _section(f"`{shown}`", model, field.description or "")
    return "\n".join(parts) + _EXAMPLE.format(example=EXAMPLE.read_text(encoding="utf-8"))


_INTRODUCTION = """\
# Configuration file

<!-- Generated from the models in deployer/config by tests/docs/reference.py. -->

One YAML file describes one environment. `deployer init` writes a commented one, `deployer validate FILE` checks
one and complains with file, line and field, and `deployer schema` prints the JSON Schema for editors. Paths in it are
relative to the file, and `~` is your home directory. Unknown fields are errors, and so are duplicate keys. YAML's
aliases (`&x`, `*x`) may be used, merge keys (`<<`) not; a key is always the text as typed. With aliases expanded and
defaults filled in, it may have 1 MiB.
"""

_EXAMPLE = """\

## Secrets

Values from `configure.variables` are replaced by `{{{{ name }}}}` in all that Ansible says: on the screen, in logs,
events and errors. Replaced are texts and numbers of 8 characters or more (of 4 or more if the name has `pass`,
`secret`, `token`, `key`, `credential` or `private` in it), and each line of a longer text. Not replaced are shorter
values, true and false, what a tool has encoded, quoted or cut, and what is not in `configure.variables`, as from
`group_vars` or a vault: give such tasks `no_log: true`.

In what OpenTofu says, only values in `provider.options` and a host's `options` whose name is a secret's are replaced.
Declare those variables of the module `sensitive` as well, and hand them to a `local-exec` by its `environment`: its
`command` is in OpenTofu's state and in its errors.

Your file's values are kept in clear in `.deployer`, readable by you alone, and stay in `environment.json` after
`destroy`: remove `.deployer/environments/NAME` when it is destroyed for good. A `.gitignore` in a new `.deployer` keeps
git out of it; in a home of another name, that is yours to do.

## What a change does

Where machines may exist, `deployer up FILE` shows what changed, and asks. A host that you add is made, one that you
take out is destroyed, and a renamed host is another host. Another `name` at the top is another environment: the first
one goes on running until it is destroyed, and `up` says so. Playbooks run on all hosts.

What OpenTofu calls `replace` is not always a loss. With `local`, a change of `cpus`, `memory`, `ports` or a larger
`disk` replaces `terraform_data.running[...]`: the machine is started again on its disk. A change of `cloud_init`,
`ssh`, the image, or a smaller `disk` replaces `terraform_data.machine[...]` too: **a new machine, and what was on its
disk is gone.**

## A whole file

What `deployer init` writes:

```yaml
{example}```
"""


def _section(title: str, model: type[BaseModel], meaning: str = "") -> list[str]:
    lines = [f"## {title}", ""]
    if meaning:
        lines += [meaning, ""]
    lines += ["| Field | Type | Default | Meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", _type(field), _default(field), field.description or "")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Provider):
        return f"`{value.name}`"
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, BaseModel):
        return "the defaults below"
    return f"`{json.dumps(value)}`"


def _type(field: FieldInfo) -> str:
    limits: dict[str, int] = {}
    for constraint in field.metadata:
        limits |= {key: getattr(constraint, key) for key in ("ge", "le") if getattr(constraint, key, None) is not None}
    text = _words(field.annotation)
    bounds = f", {limits['ge']} to {limits['le']}" if len(limits) == 2 else ""
    return text + bounds


def _words(annotation: Any) -> str:
    """A type as people say it."""
    simple = {int: "whole number", str: "text", bool: "true or false", type(None): ""}
    if annotation in simple:
        return simple[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        given = [m.json_schema_input_type for m in arguments[1:] if isinstance(m, BeforeValidator)]
        return _words(given[0] if given else arguments[0])
    if origin is typing.Literal:
        return " or ".join(json.dumps(a) for a in arguments)
    if origin is tuple:
        return f"list of {_words(arguments[0])}"
    if origin is dict:
        value = _words(arguments[1])
        return f"mapping of {_words(arguments[0])} to {value}" if value != "anything" else "mapping"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "name or mapping" if annotation is Provider else "mapping"
    if arguments:
        return " or ".join(dict.fromkeys(word for word in map(_words, arguments) if word))
    return "anything"


if __name__ == "__main__":
    PAGE.write_text(configuration_reference(), encoding="utf-8")
