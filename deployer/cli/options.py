"""The common options of the command line."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deployer.storage.folder import find_home


@dataclass
class Options:
    """The common options as far as the command line has been read; what comes later wins."""

    home: Path | None = None
    output: Literal["text", "json"] = "text"
    progress: Literal["auto", "plain", "json", "none"] = "auto"
    verbose: bool = False
    lock_timeout: float = 0.0

    def where(self) -> Path:
        """The home, as the library finds it; costs no import of it."""
        return self.home or find_home(Path.cwd(), os.environ)
