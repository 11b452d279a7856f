"""Values as people read them in a terminal: times, tables, colours. Knows no environment."""

import contextlib
import os
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
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def moment(value: object) -> str:
    """An instant (a datetime or its text) in UTC, and how long ago it was."""
    at = datetime.fromisoformat(str(value)).astimezone(UTC)
    ago = max(0.0, (datetime.now(UTC) - at).total_seconds())
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({duration(ago)} ago)"


def clip(text: str, columns: int) -> str:
    """`text` on one line of at most that many characters."""
    text = printable(text).replace("\n", " ").replace("\t", " ").rstrip()
    return text if len(text) <= columns else text[: columns - 1] + "~"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of equal width, two spaces between."""
    cleaned = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cleaned)


def indented(text: str, indent: str) -> str:
    """`text` with every line but the first moved right."""
    return printable(text).strip("\n").replace("\n", "\n" + indent)
