"""What a command works with: the options, the library, the result's way out, the questions. Decides nothing."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from deployer.cli.options import Options
from deployer.cli.overview import finished_text
from deployer.errors import Declined
from deployer.events import printable

if TYPE_CHECKING:
    from deployer import Deployer
    from deployer.app.deployer import Changes, Confirm
    from deployer.cli.progress import Renderer


@dataclass(frozen=True)
class Work:
    """A command that changes something: the library, a way to ask a question meanwhile, and what came of it."""

    options: Options
    deployer: Deployer
    renderer: Renderer
    began: float = field(default_factory=time.monotonic)

    def ask(self, text: str, question: str, *, again: str) -> bool:
        """Shows `text` and asks. Raises Declined at a no, or where nobody can be asked; `again`: what to type then."""
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            message = f"{question} Nobody can be asked: this is no terminal"
            raise Declined(message, detail=text, help=f"{again} --yes")
        # While we wait for an answer there is nothing to bring to an orderly end: Ctrl+C is a no.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with self.renderer.paused():
                click.echo(f"{text}\n{question} [y/N] ", nl=False, err=True)
                answer = sys.stdin.readline().strip().lower()
        except KeyboardInterrupt:
            click.echo(err=True)
            raise
        finally:
            signal.signal(signal.SIGINT, before)
        if answer not in ("y", "yes"):
            raise Declined("the answer was no", help=f"{again} --yes")
        return True

    def confirm(self, *, yes: bool, again: str) -> Confirm | None:
        """The library's question whether changes shall be made; with `yes` there is none."""
        return None if yes else lambda changes: self.ask(changes_text(changes), "Make these changes?", again=again)

    def emit_outcome(self, name: str) -> None:
        """What the command leaves behind, to stdout; after the progress has ended."""
        overview = self.deployer.show(name).as_dict()
        emit(self.options, finished_text(overview, time.monotonic() - self.began), overview)


@contextmanager
def working(options: Options) -> Iterator[Work]:
    """The library with its progress on stderr; Ctrl+C and SIGTERM are requests to stop while the block runs."""
    from deployer import Deployer
    from deployer.cli.progress import progress
    from deployer.process import Interrupts

    interrupts, wait = Interrupts(), options.lock_timeout
    with progress(options, sys.stderr) as renderer, interrupts.listening():
        deployer = Deployer(options.home, report=renderer, interrupts=interrupts, lock_timeout=wait)
        yield Work(options, deployer, renderer)


def reading(options: Options) -> Deployer:
    """The library, for a command that looks only."""
    from deployer import Deployer

    return Deployer(options.home)


def emit(options: Options, text: str, data: object) -> None:
    """The result to stdout, in the form that was asked for."""
    click.echo(json.dumps(data, default=str) if options.output == "json" else text)


def changes_text(changes: Changes) -> str:
    """What changed in the file, and what OpenTofu would do about it."""
    lines = ["The configuration file has changed:", *(f"  {line}" for line in changes.spec)] if changes.spec else []
    lines += ["OpenTofu's plan:", *(f"  {line}" for line in plan_lines(changes.plan))]
    return printable("\n".join(lines))


def plan_lines(plan: Any) -> list[str]:
    if plan.empty:
        return ["no changes to the machines"]
    return [*(f"{change.action}  {change.address}" for change in plan.changes), str(plan.summary)]
