"""The common options as values. Knows no command line: what starts often must import little."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Options:
    home: Path | None = None
    output: Literal["text", "json"] = "text"
    progress: Literal["auto", "plain", "json", "none"] = "auto"
    verbose: bool = False


class Chosen:
    """The options as far as the command line has been read; what comes later wins."""

    def __init__(self) -> None:
        self.options = Options()

    def set(self, name: str, value: Any) -> None:
        self.options = replace(self.options, **{name: value})
