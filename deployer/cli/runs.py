"""The commands that change something: create, up, plan, provision, configure, destroy."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from deployer.cli.options import (
    FILE,
    FROM_START,
    LOCK_TIMEOUT,
    MAYBE_FILE,
    MAYBE_NAME,
    NAME,
    YES,
    Options,
    command,
    flag,
    names,
)
from deployer.cli.session import emit, plan_lines, working


@command(FILE, LOCK_TIMEOUT, example="deployer create -f demo.yml")
def create(options: Options, file: Path) -> None:
    """Accept a file as a new environment.

    Nothing is made yet.
    """
    with working(options) as work:
        name = work.deployer.create(file).name
    work.emit_outcome(name)


_FILE_OR_NAME = click.Argument(["file_or_name"], metavar="FILE-or-NAME", type=click.Path(), shell_complete=names)
_UP = "deployer up demo.yml       # later, to go on or to change something: deployer up demo.yml"


@command(_FILE_OR_NAME, FROM_START, YES, LOCK_TIMEOUT, example=_UP)
def up(options: Options, file_or_name: str, from_start: bool, yes: bool) -> None:
    """Do all that is left to do until it is configured.

    With a file that has changed, what changed is shown first.
    """
    with working(options) as work:
        confirm = work.confirm(yes=yes, again=f"deployer up {shlex.quote(file_or_name)}")
        name = work.deployer.up(file_or_name, from_start=from_start, confirm=confirm).name
    work.emit_outcome(name)


@command(NAME, LOCK_TIMEOUT, example="deployer plan demo")
def plan(options: Options, name: str) -> None:
    """Show what OpenTofu would do now; nothing is changed."""
    with working(options) as work:
        found = work.deployer.plan(name)
    changes = [{"address": change.address, "action": change.action} for change in found.changes]
    data = {"name": name, "empty": found.empty, "summary": found.summary, "changes": changes}
    emit(options, "\n".join([f"{name}:", *(f"  {line}" for line in plan_lines(found))]), data)


_PROVISION = "deployer provision demo\ndeployer provision -f demo.yml --yes     # with what changed in the file"


@command(MAYBE_NAME, MAYBE_FILE, FROM_START, YES, LOCK_TIMEOUT, example=_PROVISION)
def provision(options: Options, name: str | None, file: Path | None, from_start: bool, yes: bool) -> None:
    """Make the machines and wait until they are ready."""
    if not (name or file):
        raise click.UsageError("give the environment's NAME, or a file with -f FILE")
    with working(options) as work:
        if name and file and (other := work.deployer.validate(file).name) != name:
            raise click.UsageError(f"{file} is the file of environment {other}, not of {name}")
        confirm = work.confirm(yes=yes, again=f"deployer provision {f'-f {shlex.quote(str(file))}' if file else name}")
        name = work.deployer.provision(file or str(name), from_start=from_start, confirm=confirm).name
    work.emit_outcome(name)


@command(NAME, FROM_START, LOCK_TIMEOUT, example="deployer configure demo")
def configure(options: Options, name: str, from_start: bool) -> None:
    """Run the playbooks on the machines."""
    with working(options) as work:
        work.deployer.configure(name, from_start=from_start)
    work.emit_outcome(name)


_ABANDON = flag("--abandon", help="You have looked, and nothing exists any more: OpenTofu is not asked.")
_DESTROY = "deployer destroy demo\ndeployer destroy demo --yes     # in a script"


@command(NAME, YES, _ABANDON, LOCK_TIMEOUT, example=_DESTROY)
def destroy(options: Options, name: str, yes: bool, abandon: bool) -> None:
    """Take everything away that was made."""
    with working(options) as work:
        if not yes and (overview := work.deployer.show(name).as_dict())["state"] != "destroyed":
            question = f"Forget {name} without asking OpenTofu?" if abandon else f"Destroy {name}?"
            again = f"deployer destroy {name}" + (" --abandon" if abandon else "")
            work.ask(f"{name} is {overview['state']}. {overview['exists']}", question, again=again)
        work.deployer.destroy(name, abandon=abandon)
    work.emit_outcome(name)
