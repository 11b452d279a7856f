"""What changed between two accepted specifications, in lines for people. Values that may be secret are never shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from deployer.events import printable

# What stands under these may be a password or a token: one line says that it changed, by its first key only.
_HIDDEN = ("configure.variables", "provider.options", "cloud_init", "hosts.*.options")


def spec_changes(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[str, ...]:
    """Lines as `hosts.web.memory: 1024 -> 2048`, in the order of the specification; empty where nothing changed."""
    return tuple(printable(line) for line in _changes("", old, new, inside_hidden=False))


def _changes(path: str, old: Mapping[str, object], new: Mapping[str, object], *, inside_hidden: bool) -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        where = f"{path}.{key}" if path else key
        hidden = inside_hidden or any(fnmatchcase(where, pattern) for pattern in _HIDDEN)
        before, after = old.get(key), new.get(key)
        if key not in old:
            shown = isinstance(after, str | int | float | list) and not hidden
            yield f"{where}: added" + (f" ({_text(after)})" if shown else "")
        elif key not in new:
            yield f"{where}: removed"
        elif before == after and type(before) is type(after):
            continue
        elif isinstance(before, Mapping) and isinstance(after, Mapping) and not inside_hidden:
            yield from _changes(where, before, after, inside_hidden=hidden)
        else:
            yield f"{where}: changed" if hidden else f"{where}: {_text(before)} -> {_text(after)}"


def _text(value: object) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:197] + "..."
