"""What changed between two accepted specifications, in lines for people. Values that may be secret are never shown."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from deployer.events import printable

# These may be a password or a token, or hold one: told is only that they changed.
_HIDDEN = ("configure.variables.*", "provider.options.*", "cloud_init.*", "hosts.*.options.*")


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
