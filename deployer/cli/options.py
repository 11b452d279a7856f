"""The common options, and what they give a command: the library, and its result's way out."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click

import deployer
from deployer.cli.overview import finished_text
from deployer.storage.folder import find_home


@dataclass
class Options:
    """The common options as far as the command line has been read; what comes later wins."""

    home: Path | None = None
    output: Literal["text", "json"] = "text"
    progress: Literal["auto", "plain", "json", "none"] = "auto"
    verbose: bool = False
    lock_timeout: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def where(self) -> Path:
        """The home, as the library finds it; costs no import of it."""
        return self.home or find_home(Path.cwd(), os.environ)

    def reading(self) -> deployer.Deployer:
        """The library, for a command that looks only."""
        return deployer.Deployer(self.home)

    @contextmanager
    def working(self) -> Iterator[deployer.Deployer]:
        """The library with its progress on stderr; Ctrl+C and SIGTERM are requests to stop while the block runs."""
        from deployer.cli.progress import progress
        from deployer.process import Interrupts

        with progress(self, sys.stderr) as report, Interrupts().listening() as interrupts:
            yield deployer.Deployer(self.home, report=report, interrupts=interrupts, lock_timeout=self.lock_timeout)

    def emit(self, text: str, data: object) -> None:
        """The result to stdout, in the form that was asked for."""
        click.echo(json.dumps(data, default=str) if self.output == "json" else text)

    def change(self, act: Callable[[deployer.Deployer], str]) -> None:
        """Does what changes an environment; then, after the progress has ended, shows what `act` left behind under the
        name that it returned."""
        with self.working() as library:
            name = act(library)
        overview = self.reading().show(name).as_dict()
        self.emit(finished_text(overview, time.monotonic() - self.began), overview)
