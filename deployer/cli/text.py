"""What people read in a terminal: times, tables, colours, and the fields of an overview. Knows no environment."""

import contextlib
import os
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, Any

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
    """`text` on one line that takes at most that many columns."""
    text = printable(text).replace("\n", " ").replace("\t", " ").rstrip()
    columns -= sum(unicodedata.east_asian_width(c) in "WF" for c in text[:columns])  # these take two
    return text if len(text) <= columns else text[: columns - 1] + "~"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of equal width, two spaces between."""
    cleaned = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cleaned, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cleaned)


def indented(text: str, indent: str) -> str:
    """`text` with every line but the first moved right."""
    return printable(text).strip("\n").replace("\n", "\n" + indent)


def finished_text(overview: Mapping[str, Any], seconds: float) -> str:
    """What a command leaves behind: the state, how long it took, the machines, and what to type next."""
    took = f", in {duration(seconds)}" if seconds >= 1 else ""
    rows = [*_host_rows(overview), *(("next", command) for command in overview["next_commands"])]
    return "\n".join([f"{overview['name']}: {overview['state']}{took}", *_aligned(rows)])


def show_text(overview: Mapping[str, Any], spelled: Callable[[str], str] = str) -> str:
    """Everything a person needs, the next command last; `spelled` makes commands such that they can be pasted."""
    failure, holder = overview["failure"] or {}, overview["busy"] or {}
    directory = shlex.quote(str(overview["tofu_directory"]))
    at = f"at {overview['step']}" if overview["step"] else "between two steps"
    doing = " at ".join(filter(None, (holder.get("command"), holder.get("step"))))
    doing += " (ended; what it started goes on)" if holder.get("alive") is False else ""
    # The command, and the tools that it has started.
    workers = [holder | {"doing": doing}, *holder["children"]] if holder else []
    rows = [
        ("state", f"{overview['state']}, interrupted {at}" if overview["interrupted"] else overview["state"]),
        *(("busy", f"{worker['doing']}, pid {worker['pid']}, since {worker['since']}") for worker in workers),
        ("failed at", "{step} ({kind})".format(**failure) if failure else ""),
        ("cause", failure.get("cause", "")),
        ("changed", moment(overview["changed_at"])),
        ("created", moment(overview["created_at"])),
        ("file", overview["file"]),
        ("provider", overview["provider"]),
        ("playbooks", ", ".join(overview["playbooks"]) or "none"),
        ("resources", overview["resources"]),
        *_host_rows(overview),
        *(("done", f"{step['name']}  {duration(step['seconds'])}") for step in overview["steps"]),
        *(("reality", line) for line in overview["reality"]),
        ("log", overview["log"] or "none"),
        ("by hand", spelled(f"cd {directory} && tofu destroy") if overview["resources"] != "none" else ""),
        *(("next", command) for command in overview["next_commands"]),
    ]
    return "\n".join([overview["name"], *_aligned(rows)])


def _aligned(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    before = ""
    for label, value in rows:
        if value:
            yield f"  {label if label != before else '':<10} {indented(value, ' ' * 13)}"
            before = label


def _host_rows(overview: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, host in overview["hosts"].items():
        at = f"[{host['address']}]" if ":" in host["address"] else host["address"]
        forwards = [_forward(f"{at}:{port['host']}", port["machine"]) for port in host["ports"]]
        yield "host", "  ".join([f"{name}  {host['user']}@{host['address']} port {host['port']}", *forwards])


def _forward(here: str, there: int) -> str:
    return f"http://{here}" if there == 80 else f"{here} -> {there}"
