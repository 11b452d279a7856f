"""The commands that change something: create, up, plan, provision, configure, destroy."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

import click

from deployer.cli.choices import Chosen
from deployer.cli.options import (
    command,
    file_option,
    from_start_option,
    lock_timeout_option,
    name_argument,
    names_and_files,
    yes_option,
)
from deployer.cli.overview import finished_text, hosts_text
from deployer.cli.session import emit, plan_lines, reading, working
from deployer.cli.text import duration


@command(example="deployer create -f demo.yml")
@file_option
@lock_timeout_option
@click.pass_obj
def create(chosen: Chosen, file: Path, lock_timeout: float) -> None:
    """Accept a file as a new environment.

    Nothing is made yet.
    """
    with working(chosen, lock_timeout=lock_timeout) as work:
        name = work.deployer.create(file).name
    _emit_outcome(chosen, name)


@command(example="deployer up demo.yml       # later, to go on or to change something: deployer up demo.yml")
@click.argument("file_or_name", metavar="FILE-or-NAME", shell_complete=names_and_files)
@from_start_option
@yes_option
@lock_timeout_option
@click.pass_obj
def up(chosen: Chosen, file_or_name: str, from_start: bool, yes: bool, lock_timeout: float) -> None:
    """Do all that is left to do until it is configured.

    With a file that has changed, what changed is shown first.
    """
    started = time.monotonic()
    with working(chosen, lock_timeout=lock_timeout) as work:
        confirm = work.confirm(yes=yes, again=f"deployer up {shlex.quote(file_or_name)}")
        environment = work.deployer.up(file_or_name, from_start=from_start, confirm=confirm)
    _emit_outcome(chosen, environment.name, started)


@command(example="deployer plan demo")
@name_argument()
@lock_timeout_option
@click.pass_obj
def plan(chosen: Chosen, name: str, lock_timeout: float) -> None:
    """Show what OpenTofu would do now; nothing is changed."""
    with working(chosen, lock_timeout=lock_timeout) as work:
        found = work.deployer.plan(name)
    changes = [{"address": change.address, "action": change.action} for change in found.changes]
    data = {"name": name, "empty": found.empty, "summary": found.summary, "changes": changes}
    emit(chosen.options, "\n".join([f"{name}:", *(f"  {line}" for line in plan_lines(found))]), data)


@command(example="deployer provision demo\ndeployer provision -f demo.yml --yes     # with what changed in the file")
@name_argument(required=False)
@click.option("-f", "--file", type=click.Path(path_type=Path), help="Take over a changed configuration file.")
@from_start_option
@yes_option
@lock_timeout_option
@click.pass_obj
def provision(
    chosen: Chosen, name: str | None, file: Path | None, from_start: bool, yes: bool, lock_timeout: float
) -> None:
    """Make the machines and wait until they are ready."""
    if name is None and file is None:
        raise click.UsageError("give the environment's NAME, or a file with -f FILE")
    started = time.monotonic()
    with working(chosen, lock_timeout=lock_timeout) as work:
        if name is None and file is not None:
            name = work.deployer.validate(file).name
        again = f"deployer provision {name}" + (f" -f {shlex.quote(str(file))}" if file else "")
        confirm = work.confirm(yes=yes, again=again)
        environment = work.deployer.provision(str(name), file=file, from_start=from_start, confirm=confirm)
    _emit_outcome(chosen, environment.name, started)


@command(example="deployer configure demo")
@name_argument()
@from_start_option
@lock_timeout_option
@click.pass_obj
def configure(chosen: Chosen, name: str, from_start: bool, lock_timeout: float) -> None:
    """Run the playbooks on the machines."""
    started = time.monotonic()
    with working(chosen, lock_timeout=lock_timeout) as work:
        environment = work.deployer.configure(name, from_start=from_start)
    _emit_outcome(chosen, environment.name, started)


@command(example="deployer destroy demo\ndeployer destroy demo --yes     # in a script")
@name_argument()
@yes_option
@click.option("--abandon", is_flag=True, help="You have looked, and nothing exists any more: OpenTofu is not asked.")
@lock_timeout_option
@click.pass_obj
def destroy(chosen: Chosen, name: str, yes: bool, abandon: bool, lock_timeout: float) -> None:
    """Take everything away that was made."""
    started = time.monotonic()
    with working(chosen, lock_timeout=lock_timeout) as work:
        if not yes:
            overview = work.deployer.show(name).as_dict()
            if overview["state"] != "destroyed":
                text = f"{name} is {overview['state']}; {hosts_text(overview)}"
                question = f"Forget {name} without asking OpenTofu?" if abandon else f"Destroy {name}?"
                again = f"deployer destroy {name}" + (" --abandon" if abandon else "")
                work.ask(text, question, yes=yes, again=again)
        work.deployer.destroy(name, abandon=abandon)
    _emit_outcome(chosen, name, started)


def _emit_outcome(chosen: Chosen, name: str, started: float | None = None) -> None:
    overview = reading(chosen).show(name).as_dict()
    took = "" if started is None else duration(time.monotonic() - started)
    emit(chosen.options, finished_text(overview, took), overview)
