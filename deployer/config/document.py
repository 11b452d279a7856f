"""A YAML text as plain data that remembers its lines; every trap of YAML is refused here. Knows no specification."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

_DEEPEST = 50
_MOST = 100_000  # values, aliases expanded
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"

FieldPath: TypeAlias = tuple[str | int, ...]


@dataclass(eq=False)
class BadDocument(Exception):
    """The text is no usable YAML, at `line` (counted from 1; 0: there is no text)."""

    line: int
    problem: str


@dataclass(frozen=True)
class Document:
    """The data, ready for JSON; the line of each value's path; the paths of keys that were numbers in the text."""

    data: Any
    lines: dict[FieldPath, int]
    number_keys: tuple[FieldPath, ...]

    def existing(self, path: FieldPath) -> FieldPath:
        """`path` without the parts that lead to nothing in the file."""
        found: FieldPath = ()
        for part in path:
            found = (*found, part) if (*found, part) in self.lines else found
        return found


def parse(text: str) -> Document:
    """The one document in `text`. Raises BadDocument for everything that is no plain, finite, unambiguous data."""
    try:
        return _Reader(yaml.SafeLoader(text)).document()
    except yaml.MarkedYAMLError as error:
        # PyYAML names a doubled anchor in the context, and everything else in the problem.
        problem = str((isinstance(error, ComposerError) and error.context) or error.problem)
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        if "'\\t'" in problem:
            problem = "a tab where YAML allows spaces only"
        raise BadDocument(line, f"not valid YAML, column {column}: {problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadDocument(line, f"character {int(error.character):#x} is not allowed in YAML") from None


class _Reader:
    """PyYAML's nodes to data. Not its constructor: that one hides doubled keys and expands aliases without a limit."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._lines: dict[FieldPath, int] = {}
        self._number_keys: list[FieldPath] = []
        self._size = 0

    def document(self) -> Document:
        loader = self._loader
        try:
            data = self._value(loader.get_node(), (), ()) if loader.check_node() else None
        except RecursionError:  # PyYAML's own; ours has a limit
            raise BadDocument(loader.line + 1, f"nested more than {_DEEPEST} levels deep") from None
        if loader.check_node():
            line = loader.peek_event().start_mark.line + 1
            raise BadDocument(line, "a second document begins here; a file describes one environment")
        if data is None:
            raise BadDocument(1, "the file is empty")
        return Document(data, self._lines, tuple(self._number_keys))

    def _value(self, node: yaml.Node, path: FieldPath, above: tuple[yaml.Node, ...]) -> Any:
        """`above` are the nodes that `node` is in: where it is one of them itself, the text goes in circles."""
        if node in above:
            raise _bad(node, "an alias contains itself")
        if len(above) > _DEEPEST:
            raise _bad(node, f"nested more than {_DEEPEST} levels deep")
        self._size += 1
        if self._size > _MOST:
            raise _bad((*above, node)[1], f"more than {_MOST:,} values, its aliases expanded")
        self._lines.setdefault(path, _line(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, (*above, node))
        if node.tag != _TAG + "seq":
            raise _unsupported(node)
        return [self._value(item, (*path, index), (*above, node)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: FieldPath, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        own: dict[str, int] = {}
        for key_node, value in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self._key(key_node)
            name, where = str(key), (*path, str(key))
            if name in own:
                raise _bad(key_node, f"the key {name[:60]} is here a second time; first on line {own[name]}")
            if isinstance(key, int):
                self._number_keys.append(where)
            own[name] = self._lines.setdefault(where, _line(key_node))
            data[name] = self._value(value, where, above)
        for merged in (value for key, value in node.value if key.tag == _MERGE):
            for source in merged.value if isinstance(merged, yaml.SequenceNode) else [merged]:
                if not isinstance(source, yaml.MappingNode):
                    raise _bad(source, "<< merges mappings only")
                data = {**self._value(source, path, above), **data}
        return data

    def _key(self, node: yaml.Node) -> str | int:
        if not isinstance(node, yaml.ScalarNode):
            raise _bad(node, "a key must be a single text, not a list or a mapping")
        key = self._scalar(node)
        if isinstance(key, str) or type(key) is int:
            return key
        raise _bad(node, f"the key {node.value or 'null'} is not a text for YAML; put it in quotes to make it one")

    def _scalar(self, node: yaml.ScalarNode) -> str | int | float | bool | None:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise _bad(node, "half of a surrogate pair is no character")
        if kind in ("str", "timestamp", "merge", "value"):  # a date is what the user typed, not an instant somewhere
            return text
        if kind in ("int", "float") and ":" in text:  # YAML 1.1 reads 22:22 as 1342, which nobody means
            return text
        if kind not in ("null", "bool", "int", "float"):
            raise _unsupported(node)
        try:
            value: int | float | bool | None = getattr(self._loader, f"construct_yaml_{kind}")(node)
        except (ValueError, LookupError):
            value = math.nan
        if len(text) > 1000 or (isinstance(value, float) and not math.isfinite(value)):
            raise _bad(node, "not a number that can be used (infinite, or too long)")
        return value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _bad(node: yaml.Node, problem: str) -> BadDocument:
    return BadDocument(_line(node), problem)


def _unsupported(node: yaml.Node) -> BadDocument:
    return _bad(node, f"the tag {str(node.tag).replace(_TAG, '!!')[:60]} is not supported")
