"""Questions to whoever sits at the terminal, asked before a run: nothing is drawn there meanwhile. Decides nothing."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import click

from deployer.errors import Declined
from deployer.events import printable

if TYPE_CHECKING:
    from deployer.app.deployer import Changes, Confirm
    from deployer.tofu.stream import Plan


def ask(text: str, question: str, *, again: str) -> bool:
    """Shows `text` and asks. Raises Declined at a no, or where nobody can be asked; `again`: what to type then."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Declined(f"{question} Nobody can be asked: this is no terminal", detail=text, help=f"{again} --yes")
    # While we wait for an answer there is nothing to bring to an orderly end: Ctrl+C is a no.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        click.echo(f"{text}\n{question} [y/N] ", nl=False, err=True)
        answer = sys.stdin.readline().strip().lower()
    except KeyboardInterrupt:
        click.echo(err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if answer not in ("y", "yes"):
        raise Declined("the answer was no", help=f"{again}    # asks again")
    return True


def confirm(*, yes: bool, again: str) -> Confirm:
    """The library's question whether changes shall be made; with `yes` there is none."""
    return None if yes else lambda changes: ask(changes_text(changes), "Make these changes?", again=again)


def changes_text(changes: Changes) -> str:
    """What changed in the file, and what OpenTofu would do about it."""
    file = ["\n  ".join(["The configuration file has changed:", *changes.spec])] if changes.spec else []
    return printable("\n".join([*file, plan_text("OpenTofu's plan:", changes.plan)]))


def plan_text(heading: str, plan: Plan) -> str:
    changes = [*(f"{change.action}  {change.address}" for change in plan.changes), plan.summary]
    return "\n  ".join([heading, *(["no changes to the machines"] if plan.empty else changes)])
