"""Values as people read them in a terminal: times, tables, widths, colours. Knows no environment."""

from __future__ import annotations

import contextlib
import itertools
import os
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO

from deployer.events import printable

_CODES = {"red": "31", "green": "32", "yellow": "33", "dim": "2", "bold": "1"}


def may_colour(stream: IO[str]) -> bool:
    """Whether colours are welcome: a terminal that can, and a user who does not say NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def is_terminal(stream: IO[str]) -> bool:
    """Whether `stream` is a terminal on which a line can be drawn again."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def write(stream: IO[str], text: str) -> None:
    """Writes to whoever listens; that nobody does, or that the disk is full, is no failure of ours."""
    with contextlib.suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()


def paint(text: str, look: str, *, colour: bool) -> str:
    """`look` is red, green, yellow, dim or bold."""
    return f"\x1b[{_CODES[look]}m{text}\x1b[0m" if colour else text


def duration(seconds: float) -> str:
    """`1.2 s`, `34 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def whole(seconds: float) -> str:
    """As `duration`, in whole seconds: for what is drawn again and again."""
    return duration(float(int(seconds))).replace(".0 s", " s")


def moment(value: object) -> str:
    """An instant (a datetime or its text) in UTC, and how long ago it was."""
    at = datetime.fromisoformat(str(value)).astimezone(UTC)
    ago = max(0.0, (datetime.now(UTC) - at).total_seconds())
    long_ago = f"{ago // 86400:.0f} days" if ago >= 2 * 86400 else whole(ago)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({long_ago} ago)"


def width(text: str) -> int:
    """The columns that `text` takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def clip(text: str, columns: int) -> str:
    """`text` on one line of at most that many columns."""
    text = printable(text).replace("\n", " ").replace("\t", " ")
    if width(text) <= columns:
        return text
    ends = itertools.accumulate(map(width, text))
    return "".join(c for c, end in zip(text, ends, strict=True) if end < columns) + ("~" if columns > 0 else "")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of equal width, two spaces between."""
    cleaned = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*cleaned, strict=True)]
    padded = [[cell + " " * (w - width(cell)) for cell, w in zip(row, widths, strict=True)] for row in cleaned]
    return "\n".join("  ".join(row).rstrip() for row in padded)


def indented(text: str, indent: str) -> str:
    """`text` with every line but the first moved right."""
    return printable(text).strip("\n").replace("\n", "\n" + indent)
