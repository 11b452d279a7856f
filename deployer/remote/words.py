"""What a machine says, made fit for an event, an error or a terminal. A machine's words are never trusted."""

from __future__ import annotations

from deployer.events import printable


def one_line(text: str, longest: int = 200) -> str:
    """`text` on one line of at most `longest` characters, without anything that commands a terminal."""
    flat = " ".join(printable(text[: 20 * longest]).split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def excerpt(log: str) -> str:
    """The end of a log as a few printable lines; consoles end theirs with carriage returns."""
    lines = printable(log.replace("\r", "\n")).split("\n")
    return "\n".join([line.rstrip() for line in lines if line.strip()][-30:])
