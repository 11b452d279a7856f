"""Values as people read them in a terminal: times, tables, widths, colours. Knows no environment."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO

from deployer.events import printable

RED, GREEN, YELLOW, DIM, BOLD = "31", "32", "33", "2", "1"


def may_colour(stream: IO[str]) -> bool:
    """Whether colours are welcome: a terminal that can, and a user who does not say NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether `stream` is a terminal on which a line can be drawn again."""
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        return False


def paint(text: str, code: str, *, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour else text


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
    """An instant (a datetime, or its ISO text) in UTC, and how long ago it was."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return str(value or "")
    at = at.astimezone(UTC)
    ago = max(0.0, (datetime.now(UTC) - at).total_seconds())
    long_ago = f"{ago // 86400:.0f} days" if ago >= 2 * 86400 else whole(ago)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({long_ago} ago)"


def width(text: str) -> int:
    """The columns that `text` takes in a terminal."""
    return sum(_columns(c) for c in text)


def clip(text: str, columns: int) -> str:
    """`text` on one line of at most that many columns."""
    text = printable(text).replace("\n", " ").replace("\t", " ")
    if width(text) <= columns:
        return text
    kept, used = [], 0
    for c in text:
        used += _columns(c)
        if used > columns - 1:
            break
        kept.append(c)
    return "".join(kept) + ("~" if columns > 0 else "")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of equal width, two spaces between."""
    cleaned = [[printable(cell) for cell in row] for row in rows]
    widths = [max(width(row[i]) for row in cleaned) for i in range(len(cleaned[0]))]
    lines = []
    for row in cleaned:
        cells = [cell + " " * (columns - width(cell)) for cell, columns in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def indented(text: str, indent: str) -> str:
    """`text` with every line but the first moved right."""
    return printable(text).strip("\n").replace("\n", "\n" + indent)


def _columns(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1
