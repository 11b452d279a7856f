"""A YAML text as plain data that remembers its lines; every trap of YAML is refused here. Knows no specification."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

LARGEST = 1024 * 1024  # bytes
_DEEPEST = 50
_MOST = 100_000  # values, aliases expanded

Path: TypeAlias = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_ANY_KEY_IS_TEXT = "put it in quotes to make it a text"


class BadDocument(ValueError):
    """The text is no usable YAML, at `line` (counted from 1)."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass(frozen=True, eq=False)
class Node:
    """A value, the line it begins on, and, of a mapping, the lines of its keys. `size` counts the values within."""

    line: int
    value: str | int | float | bool | list[Node] | dict[str, Node] | None
    key_lines: dict[str, int] = field(default_factory=dict)
    number_keys: frozenset[str] = frozenset()
    size: int = 1

    def step(self, part: str | int) -> Node | None:
        """The child of that key or index, where there is one."""
        if isinstance(self.value, dict):
            return self.value.get(str(part))
        if isinstance(self.value, list) and isinstance(part, int) and part < len(self.value):
            return self.value[part]
        return None

    def line_of(self, path: Path) -> int:
        """The line of the deepest thing on the way of `path` that exists; of a mapping's member, its key's line."""
        node, line = self, self.line
        for part in path:
            line = node.key_lines.get(str(part), line)
            found = node.step(part)
            if found is None:
                return line
            node = found
            line = line if isinstance(part, str) else node.line
        return line

    def data(self) -> Any:
        """The value without its lines, ready for JSON."""
        if isinstance(self.value, dict):
            return {key: node.data() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        return self.value

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, Node]]:
        """Every node with its path, from the outside in."""
        yield path, self
        children: list[tuple[str | int, Node]] = []
        if isinstance(self.value, dict):
            children.extend(self.value.items())
        elif isinstance(self.value, list):
            children.extend(enumerate(self.value))
        for part, node in children:
            yield from node.walk((*path, part))


def parse(text: str) -> Node:
    """The one document in `text`. Raises BadDocument for everything that is no plain, finite, unambiguous data."""
    try:
        return _Composer(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = str(error.problem or error.context)
        if "'\\t'" in problem:
            problem = "a tab where YAML allows spaces only"
        raise BadDocument(line, f"not valid YAML, column {column}: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise BadDocument(line, f"character {int(error.character):#x} is not allowed in YAML") from None


class _Composer:
    """Events to nodes. Our own, because PyYAML's builds loops, hides doubled keys, and recurses without a limit."""

    def __init__(self, text: str) -> None:
        self._loader: Any = yaml.SafeLoader(text)
        self._anchors: dict[str, Node | None] = {}

    def document(self) -> Node:
        loader = self._loader
        loader.get_event()  # the stream's start
        if loader.check_event(yaml.StreamEndEvent):
            raise BadDocument(1, "the file is empty")
        loader.get_event()
        node = self._node(0)
        loader.get_event()
        if not loader.check_event(yaml.StreamEndEvent):
            line = loader.peek_event().start_mark.line + 1
            raise BadDocument(line, "a second document begins here; a file describes one environment")
        if node.value is None:
            raise BadDocument(1, "the file is empty")
        return node

    def _node(self, depth: int) -> Node:
        event = self._loader.get_event()
        line = event.start_mark.line + 1
        if depth > _DEEPEST:
            raise BadDocument(line, f"nested more than {_DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        if event.anchor:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(line, self._scalar(event, line))
        elif isinstance(event, yaml.SequenceStartEvent):
            self._plain_tag(event.tag, "seq", line)
            node = self._sequence(line, depth)
        else:
            self._plain_tag(event.tag, "map", line)
            node = self._mapping(line, depth)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, name: str, line: int) -> Node:
        if name not in self._anchors:
            raise BadDocument(line, f"the alias *{name} has no anchor &{name} before it")
        node = self._anchors[name]
        if node is None:
            raise BadDocument(line, f"the alias *{name} contains itself")
        return node

    def _sequence(self, line: int, depth: int) -> Node:
        items: list[Node] = []
        size = 1
        while not self._loader.check_event(yaml.SequenceEndEvent):
            items.append(self._node(depth + 1))
            size = _sum(size, items[-1])
        self._loader.get_event()
        return Node(line, items, size=size)

    def _mapping(self, line: int, depth: int) -> Node:
        members: dict[str, Node] = {}
        lines: dict[str, int] = {}
        numbers: set[str] = set()
        merged: list[Node] = []
        size = 1
        while not self._loader.check_event(yaml.MappingEndEvent):
            event = self._loader.get_event()
            at = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise BadDocument(at, "a key must be a single text, not a list, a mapping or an alias")
            if event.value == "<<" and event.implicit[0]:
                merged.append(self._node(depth + 1))
                size = _sum(size, merged[-1])
                continue
            key = self._scalar(event, at)
            if isinstance(key, int) and not isinstance(key, bool):
                key = str(key)
                numbers.add(key)
            elif not isinstance(key, str):
                raise BadDocument(at, f"the key {event.value or 'null'} is not a text for YAML; {_ANY_KEY_IS_TEXT}")
            if key in lines:
                raise BadDocument(at, f"the key {key[:60]} is here a second time; first on line {lines[key]}")
            lines[key] = at
            members[key] = self._node(depth + 1)
            size = _sum(size, members[key])
        self._loader.get_event()
        for source in merged:
            for one in source.value if isinstance(source.value, list) else [source]:
                if not isinstance(one.value, dict):
                    raise BadDocument(source.line, "<< merges mappings only")
                members = {**one.value, **members}
                lines = {**one.key_lines, **lines}
                numbers |= one.number_keys
        return Node(line, members, lines, frozenset(numbers), size)

    def _plain_tag(self, tag: str | None, expected: str, line: int) -> None:
        if tag not in (None, "!", _TAG + expected):
            raise BadDocument(line, f"the tag {str(tag).replace(_TAG, '!!')[:60]} is not supported")

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> str | int | float | bool | None:
        tag, text = event.tag, str(event.value)
        if tag is None or tag == "!":
            tag = self._loader.resolve(yaml.ScalarNode, text, event.implicit)
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise BadDocument(line, "half of a surrogate pair is no character")
        try:
            return _value(str(tag).removeprefix(_TAG), text)
        except KeyError:
            problem = f"the tag {str(tag).replace(_TAG, '!!')[:60]} is not supported"
        except ValueError:
            problem = "not a number that can be used (infinite, or too long)"
        raise BadDocument(line, problem)


def _value(kind: str, text: str) -> str | int | float | bool | None:
    if kind in ("str", "timestamp", "merge", "value"):  # a date is what the user typed, not an instant somewhere
        return text
    if kind == "null":
        return None
    if kind == "bool":
        return {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}[text.lower()]
    if kind not in ("int", "float"):
        raise KeyError(kind)
    if ":" in text:  # YAML 1.1 reads 22:22 as 1342, which nobody means
        return text
    digits = text.replace("_", "")
    if kind == "int":
        if len(digits) > 1000:
            raise ValueError(digits[:10])
        octal = digits.lstrip("+-").startswith("0") and digits.lstrip("+-0").isdigit() and digits.strip("+-0")
        return int(digits, 8 if octal else 0)
    special = digits.lower().lstrip("+-")
    number = float(special.removeprefix(".") if special in (".inf", ".nan") else digits)
    if not math.isfinite(number):
        raise ValueError(special)
    return number


def _sum(size: int, node: Node) -> int:
    if size + node.size > _MOST:
        raise BadDocument(node.line, f"more than {_MOST:,} values, its aliases expanded")
    return size + node.size
