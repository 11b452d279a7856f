"""Puts names in the place of values that are the user's to show, not ours. Knows no file and no tool."""

import json
import re
from collections.abc import Callable, Iterator, Mapping

_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|private", re.IGNORECASE)


def veil(variables: Mapping[str, object], *, secrets_alone: bool = False) -> Callable[[str], str]:
    """Puts a variable's name in the place of its value.

    Short values stay, or every "80" and "yes" would vanish, unless the variable is named as a secret is; with
    `secrets_alone` only the values of those go.
    """
    names: dict[str, str] = {}
    for name, value in _leaves(variables):
        is_secret = bool(_SECRET_NAME.search(name))
        if len(value) >= (4 if is_secret else 8) and (is_secret or not secrets_alone):
            in_json = (json.dumps(value, ensure_ascii=plain)[1:-1] for plain in (True, False))  # tools write either
            for written in (value, *in_json, *value.splitlines()):
                if len(written.strip()) >= 4:
                    names.setdefault(written, "{{ " + name + " }}")
    # The longest first; (?!) is nowhere.
    pattern = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")
    return lambda text: pattern.sub(lambda found: names[found[0]], text)


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield name, str(value)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from _leaves(below, f"{name}.{key}".lstrip("."))
