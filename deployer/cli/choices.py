"""The common options as values. Knows no command line: what starts often must import little."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class Options:
    """The options as far as the command line has been read; what comes later wins."""

    home: Path | None = None
    output: Literal["text", "json"] = "text"
    progress: Literal["auto", "plain", "json", "none"] = "auto"
    verbose: bool = False
    lock_timeout: float = 0.0
