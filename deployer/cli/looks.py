"""The commands that look and change nothing: show, list, ssh, logs, inventory, doctor."""

from __future__ import annotations

import builtins
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deployer.cli.choices import Chosen
from deployer.cli.options import Command, command, environment_names, name_argument
from deployer.cli.overview import show_text
from deployer.cli.session import emit, reading, working
from deployer.cli.text import GREEN, RED, may_colour, moment, paint, table
from deployer.errors import InvalidInput, ToolMissing
from deployer.events import printable


@command(example="deployer show demo\ndeployer show demo --refresh     # compared with what is really there")
@name_argument()
@click.option("--refresh", is_flag=True, help="Compare with reality: OpenTofu's refresh, and whether hosts answer.")
@click.pass_obj
def show(chosen: Chosen, name: str, refresh: bool) -> None:
    """Show everything about an environment, and what to type next."""
    if refresh:
        with working(chosen) as work:
            overview = work.deployer.show(name, refresh=True).as_dict()
    else:
        overview = reading(chosen).show(name).as_dict()
    emit(chosen.options, show_text(overview), overview)


@command(example="deployer list")
@click.pass_obj
def list(chosen: Chosen) -> None:  # noqa: A001 - the command's name
    """List all environments of this home, destroyed ones too."""
    entries = reading(chosen).list()
    data = [e.as_dict() for e in entries]
    rows = [("NAME", "STATE", "RESOURCES", "CHANGED", "")]
    for e in entries:
        changed = moment(e.changed_at) if e.changed_at else ""
        note = e.problem or ("interrupted" if e.interrupted else "at work" if e.busy else "")
        rows.append((e.name, e.state or "?", e.resources, changed, note))
    emit(chosen.options, table(rows) if entries else "No environments here. Next: deployer init", data)


class _Ssh(Command):
    """What comes after `--` belongs to the machine: click would mix it with HOST."""

    def parse_args(self, ctx: click.Context, args: builtins.list[str]) -> builtins.list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["deployer.remote_command"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(cls=_Ssh, example="deployer ssh demo\ndeployer ssh demo web -- sudo systemctl status nginx")
@name_argument()
@click.argument("host", required=False)
@click.pass_context
def ssh(ctx: click.Context, name: str, host: str | None) -> None:
    """Log in to a host, or run a command there.

    deployer ssh NAME [HOST] [-- COMMAND]
    """
    argv = reading(ctx.obj).ssh_command(name, host, ctx.meta.get("deployer.remote_command", ()))
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - ssh takes our place: its terminal, its signals, its exit code
    except OSError as error:
        raise ToolMissing(f"{argv[0]} cannot be started", detail=str(error.strerror), help="deployer doctor") from None


@command(example="deployer logs demo\ndeployer logs demo --run 2     # the run before the last")
@name_argument()
@click.option("--list", "listed", is_flag=True, help="Name the logs of all runs, the newest first.")
@click.option("--run", "number", type=click.IntRange(min=1), default=1, help="Which run, counted from the last (1).")
@click.option("--follow", is_flag=True, help="Go on printing while the run goes on.")
@click.pass_obj
def logs(chosen: Chosen, name: str, listed: bool, number: int, follow: bool) -> None:
    """Print the log of the last run."""
    deployer = reading(chosen)
    paths = deployer.logs(name)[::-1]
    if listed:
        emit(chosen.options, "\n".join(map(str, paths)), [str(path) for path in paths])
        return
    if number > len(paths):
        detail = f"it has had {len(paths)} runs"
        raise InvalidInput(f"environment {name} has no such run", detail=detail, help=f"deployer logs {name} --list")
    path = paths[number - 1]
    if chosen.options.output == "json":
        emit(chosen.options, "", {"log": str(path), "text": path.read_text(encoding="utf-8", errors="replace")})
        return
    _print_log(path, (lambda: deployer.show(name).busy is not None) if follow else None)


def _print_log(path: Path, goes_on: Callable[[], bool] | None) -> None:
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            # Asked first: what is written between the question and the end of the file is still printed.
            more = goes_on is not None and goes_on()
            for line in file:
                click.echo(printable(line), nl=False)
            sys.stdout.flush()
            if not more:
                return
            time.sleep(0.5)


@command(example="deployer inventory demo --list\nansible-playbook -i inventory/deployer site.yml")
@click.argument("name", required=False, shell_complete=environment_names)
@click.option("--list", "listed", is_flag=True, help="All hosts and their variables (the default).")
@click.option("--host", metavar="HOST", help="The variables of one host.")
@click.pass_obj
def inventory(chosen: Chosen, name: str | None, listed: bool, host: str | None) -> None:
    """Print Ansible's dynamic inventory, as JSON."""
    if listed and host:
        raise click.UsageError("give either --list or --host")
    found: Any = reading(chosen).inventory(name)
    data = found.get("_meta", {}).get("hostvars", {}).get(host, {}) if host else found
    emit(chosen.options, json.dumps(data, indent=2), data)


@command(example="deployer doctor\ndeployer doctor --install     # brings OpenTofu")
@click.option("--install", is_flag=True, help="Bring OpenTofu where it is missing.")
@click.pass_context
def doctor(ctx: click.Context, install: bool) -> int:
    """Check every tool that is needed.

    Says what to type for each that is missing; exit code 6 then.
    """
    chosen: Chosen = ctx.obj
    with working(chosen) as work:
        checks = work.deployer.doctor(install=install)
    colour = may_colour(sys.stdout)
    text = table([(("ok" if c.ok else "missing"), c.name, c.detail) for c in checks])
    lines: builtins.list[str] = []
    for check, line in zip(checks, text.splitlines(), strict=True):
        lines.append(paint(line, GREEN if check.ok else RED, colour=colour))
        if not check.ok and check.fix:
            lines.append(f"         type: {printable(check.fix)}")
    fine = all(check.ok for check in checks)
    emit(chosen.options, "\n".join(lines), {"ok": fine, "checks": [c.as_dict() for c in checks]})
    return 0 if fine else ToolMissing.exit_code
