"""A YAML text as plain data that remembers its lines; every trap of YAML is refused here. Knows no specification."""

import contextlib
import re
import sys
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from yaml.reader import ReaderError

_DEEPEST = 50
_MOST = 100_000  # values, aliases expanded
_LONGEST = 1024 * 1024  # characters of all keys and values together, aliases expanded
# JSON writes a character beyond U+FFFF as two escapes, and so may YAML, which JSON is a part of.
_HALF = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
_TAG = "tag:yaml.org,2002:"
_TEXTS = ("str", "timestamp", "merge", "value")  # a date is what the user typed, not an instant somewhere
_TAGS = {"ScalarNode": (*_TEXTS, "null", "bool", "int", "float"), "SequenceNode": ("seq",), "MappingNode": ("map",)}

FieldPath: TypeAlias = tuple[str | int, ...]


@dataclass(eq=False)
class BadDocument(Exception):
    """The text is no usable YAML, at `line` (counted from 1; 0: there is no text)."""

    line: int
    problem: str


class Document:
    """The data, ready for JSON, and the line of each value's path.

    Read from PyYAML's nodes. Not by its constructor: that one hides doubled keys and expands aliases without a limit.
    """

    def __init__(self, root: yaml.Node, loader: yaml.SafeLoader) -> None:
        self._loader = loader
        self.lines: dict[FieldPath, int] = {}
        self._length = 0
        self.data = self._value(root, (), _line(root))

    def existing(self, path: FieldPath) -> FieldPath:
        """`path` without the parts that lead to nothing in the file."""
        found: FieldPath = ()
        for part in path:
            found = (*found, part) if (*found, part) in self.lines else found
        return found

    def _value(self, node: yaml.Node, path: FieldPath, line: int) -> Any:
        self.lines[path] = line
        if len(path) > _DEEPEST:  # as an alias within itself is, too
            raise BadDocument(line, f"nested more than {_DEEPEST} levels deep")
        if len(self.lines) > _MOST:
            raise BadDocument(line, f"more than {_MOST:,} values, aliases expanded")
        for text in (node.value, *path[-1:]):
            if isinstance(text, str):
                self._length += len(text)
                if _HALF.search(text):
                    raise BadDocument(line, r"a \u escape that is no character, but half of one")
        if self._length > _LONGEST:
            raise BadDocument(line, "more than 1 MiB of text, aliases expanded")
        if node.tag.removeprefix(_TAG) not in _TAGS[type(node).__name__]:
            raise BadDocument(line, f"the tag {node.tag.replace(_TAG, '!!')[:60]} is not supported")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return [self._value(item, (*path, index), _line(item)) for index, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        """A key is the text that was typed, whatever else YAML would make of it (`on: x`, `8080: 80`)."""
        data: dict[str, Any] = {}
        for key, value in node.value:
            line = _line(key)
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key must be a single text, not a list or a mapping; {{ ... }} goes in quotes"
                raise BadDocument(line, problem)
            if key.tag == _TAG + "merge":
                raise BadDocument(line, "<< is not supported; repeat the fields, or give the whole value by an alias")
            where = (*path, key.value)
            if where in self.lines:
                problem = f"the key {key.value[:60]} is here a second time; first on line {self.lines[where]}"
                raise BadDocument(line, problem)
            data[key.value] = self._value(value, where, line)
        return data

    def _scalar(self, node: yaml.ScalarNode) -> str | int | float | bool | None:
        text = str(node.value)
        if node.tag.removeprefix(_TAG) in _TEXTS or ":" in text:  # YAML 1.1 reads 22:22 as 1342, which nobody means
            return text
        with contextlib.suppress(ValueError, LookupError):
            value: int | float | bool | None = self._loader.construct_object(node)
            if value is None or abs(value) <= sys.float_info.max:
                return value
        raise BadDocument(_line(node), "not a number that can be used (infinite, or too long)")


def parse(text: str) -> Document:
    """The one document in `text`. Raises BadDocument for everything that is no plain, finite, unambiguous data."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = ", ".join(filter(None, (error.context, error.problem)))
        problem += "; indent with spaces, not with tabs" if r"'\t'" in problem else ""
        raise BadDocument(line, f"not valid YAML, column {column}: {problem}") from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        number = int(error.character)
        found = f"byte {number - 0xDC00:#x}" if 0xDC80 <= number <= 0xDCFF else f"character {number:#x}"
        problem = f"{found} is not allowed; YAML is UTF-8 without control characters"
        raise BadDocument(line, problem) from None
    except RecursionError:
        raise BadDocument(1, f"nested more than {_DEEPEST} levels deep") from None
    if root is None:
        raise BadDocument(1, "the file is empty")
    return Document(root, loader)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
