"""What a command works with: the options, the library, the result's way out, the questions. Decides nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from deployer.cli.choices import Chosen, Options

if TYPE_CHECKING:
    from deployer import Deployer
    from deployer.app.deployer import Changes
    from deployer.cli.progress import Renderer
    from deployer.process import Interrupts


class Work:
    """A command that changes something, in progress: the library, and the way to ask a question meanwhile."""

    def __init__(self, deployer: Deployer, interrupts: Interrupts, renderer: Renderer) -> None:
        self.deployer = deployer
        self._interrupts = interrupts
        self._renderer = renderer

    def ask(self, text: str, question: str, *, yes: bool, again: str) -> None:
        """Shows `text` and asks. Raises Declined at a no, or where nobody can be asked; `again`: what to type then."""
        from deployer.errors import Declined

        if yes:
            return
        if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
            raise Declined(
                f"{question} Nobody can be asked: this is no terminal",
                detail=text,
                remains="Nothing was changed.",
                help=f"{again} --yes",
            )
        with self._renderer.paused(), self._answering():
            click.echo(text, err=True)
            click.echo(f"{question} [y/N] ", nl=False, err=True)
            answer = sys.stdin.readline().strip().lower()
        if answer not in ("y", "yes"):
            raise Declined("the answer was no", remains="Nothing was changed.", help=f"{again} --yes")

    def confirm(self, *, yes: bool, again: str) -> Callable[[Changes], bool]:
        """The library's question whether changes shall be made."""

        def ask(changes: Changes) -> bool:
            self.ask(changes_text(changes), "Make these changes?", yes=yes, again=again)
            return True

        return ask

    @contextmanager
    def _answering(self) -> Iterator[None]:
        import signal

        # While we wait for an answer there is nothing to bring to an orderly end: Ctrl+C is a no.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        except KeyboardInterrupt:
            click.echo(err=True)
            self._interrupts.request()
            self._interrupts.check("the question")
        finally:
            signal.signal(signal.SIGINT, before)


@contextmanager
def working(chosen: Chosen, *, lock_timeout: float = 0.0) -> Iterator[Work]:
    """The library with its progress on stderr; Ctrl+C and SIGTERM are requests to stop while the block runs."""
    from deployer import Deployer
    from deployer.cli.progress import progress
    from deployer.process import Interrupts

    interrupts = Interrupts()
    home = chosen.options.home
    with progress(chosen.options, sys.stderr) as renderer, interrupts.listening():
        deployer = Deployer(home, report=renderer, interrupts=interrupts, lock_timeout=lock_timeout)
        yield Work(deployer, interrupts, renderer)


def reading(chosen: Chosen) -> Deployer:
    """The library, for a command that looks only."""
    from deployer import Deployer

    return Deployer(chosen.options.home)


def emit(options: Options, text: str, data: object) -> None:
    """The result to stdout, in the form that was asked for."""
    shown = json.dumps(data, default=str) if options.output == "json" else text
    if shown:
        click.echo(shown)
        sys.stdout.flush()


def changes_text(changes: Changes) -> str:
    """What changed in the file, and what OpenTofu would do about it."""
    from deployer.events import printable

    lines: list[str] = []
    if changes.spec:
        lines += ["The configuration file has changed:", *(f"  {line}" for line in changes.spec)]
    if changes.plan is not None:
        lines += ["OpenTofu's plan:", *(f"  {line}" for line in plan_lines(changes.plan))]
    return printable("\n".join(lines))


def plan_lines(plan: Any) -> list[str]:
    if plan.empty:
        return ["no changes to the machines"]
    return [*(f"{change.action}  {change.address}" for change in plan.changes), str(plan.summary)]
