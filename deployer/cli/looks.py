"""The commands that change no environment: what looks at one, and what is about files and tools."""

from __future__ import annotations

import builtins
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from deployer.cli.options import FILE, MAYBE_NAME, NAME, Options, command, flag
from deployer.cli.overview import show_text
from deployer.cli.session import emit, reading, working
from deployer.cli.text import moment, table
from deployer.errors import ToolMissing
from deployer.events import printable
from deployer.storage.glance import glance


@command(NAME, example="deployer status demo")
def status(options: Options, name: str) -> None:
    """Print the state and nothing else."""
    # Prompts ask this at every line typed: a glance costs a fraction of what loading the library does.
    state = glance(options.where(), name) or reading(options).status(name)
    emit(options, state, {"name": name, "state": state})


_REFRESH = flag("--refresh", help="Compare with reality: OpenTofu's refresh, and whether hosts answer.")
_SHOW = "deployer show demo\ndeployer show demo --refresh     # compared with what is really there"


@command(NAME, _REFRESH, example=_SHOW)
def show(options: Options, name: str, refresh: bool) -> None:
    """Show everything about an environment, and what to type next."""
    with working(options) as work:
        overview = work.deployer.show(name, refresh=refresh).as_dict()
    emit(options, show_text(overview), overview)


@command(example="deployer list")
def list(options: Options) -> None:  # noqa: A001 - the command's name
    """List all environments of this home, destroyed ones too."""
    entries = reading(options).list()
    rows = [("NAME", "STATE", "RESOURCES", "CHANGED", "")]
    for e in entries:
        changed = moment(e.changed_at) if e.changed_at else ""
        note = e.problem or ("interrupted" if e.interrupted else "at work" if e.busy else "")
        rows.append((e.name, e.state or "?", e.resources, changed, note))
    text = table(rows) if entries else "No environments here. Next: deployer init"
    emit(options, text, [e.as_dict() for e in entries])


class _Ssh(click.Command):
    """What comes after `--` belongs to the machine: click would mix it with HOST."""

    def parse_args(self, ctx: click.Context, args: builtins.list[str]) -> builtins.list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.params["remote_command"] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


_HOST = click.Argument(["host"], required=False)
_SSH = "deployer ssh demo\ndeployer ssh demo web -- sudo systemctl status nginx"


@command(NAME, _HOST, example=_SSH, kind=_Ssh)
def ssh(options: Options, name: str, host: str | None, remote_command: builtins.list[str]) -> None:
    """Log in to a host, or run a command there.

    deployer ssh NAME [HOST] [-- COMMAND]
    """
    argv = reading(options).ssh_command(name, host, remote_command)
    sys.stdout.flush()
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - ssh takes our place: its terminal, its signals, its exit code
    except OSError as error:
        raise ToolMissing(f"{argv[0]} cannot be started", detail=str(error.strerror), help="deployer doctor") from None


@command(NAME, example="deployer logs demo | tail -20")
def logs(options: Options, name: str) -> None:
    """Print the log of the last run.

    `show` names it; those of earlier runs are beside it.
    """
    path = reading(options).show(name).log
    text = Path(path).read_text(encoding="utf-8", errors="replace") if path else ""
    emit(options, printable(text).removesuffix("\n"), {"log": path, "text": text})


_ALL = flag("--list", "listed", help="All hosts and their variables (the default).")
_ONE = click.Option(["--host"], metavar="HOST", help="The variables of one host.")
_INVENTORY = "deployer inventory demo --list\nansible-playbook -i inventory/deployer site.yml"


@command(MAYBE_NAME, _ALL, _ONE, example=_INVENTORY)
def inventory(options: Options, name: str | None, listed: bool, host: str | None) -> None:
    """Print Ansible's dynamic inventory, as JSON."""
    if listed and host:
        raise click.UsageError("give either --list or --host")
    found: Any = reading(options).inventory(name)
    data = found.get("_meta", {}).get("hostvars", {}).get(host, {}) if host else found
    emit(options, json.dumps(data, indent=2), data)


_INSTALL = flag("--install", help="Bring OpenTofu where it is missing.")


@command(_INSTALL, example="deployer doctor\ndeployer doctor --install     # brings OpenTofu")
def doctor(options: Options, install: bool) -> int:
    """Check every tool that is needed.

    Says what to type for each that is missing; exit code 6 then.
    """
    with working(options) as work:
        checks = work.deployer.doctor(install=install)
    rows = [("ok" if c.ok else "missing", c.name, c.detail, "" if c.ok else f"type: {c.fix}") for c in checks]
    fine = all(check.ok for check in checks)
    emit(options, table(rows), {"ok": fine, "checks": [asdict(c) for c in checks]})
    return 0 if fine else ToolMissing.exit_code


_DIRECTORY = click.Argument(["directory"], default=".", type=click.Path(path_type=Path, file_okay=False))


@command(_DIRECTORY, example="deployer init demo        # writes demo/demo.yml")
def init(options: Options, directory: Path) -> None:
    """Write a commented demo.yml that works as it stands."""
    file = directory / reading(options).init(directory).name
    text = f"Wrote {printable(str(file))}\nNext: deployer up {shlex.quote(str(file))}"
    emit(options, text, {"file": str(file)})


@command(FILE, example="deployer validate -f demo.yml")
def validate(options: Options, file: Path) -> None:
    """Check a configuration file; nothing is made or changed."""
    spec = reading(options).validate(file)
    facts = {"name": spec.name, "hosts": [*spec.hosts], "playbooks": spec.configure.playbooks}
    emit(options, printable(f"{file}: ok, environment {spec.name}"), {"valid": True, "file": str(file), **facts})


@command(example="deployer schema > .deployer/schema.json")
def schema(options: Options) -> None:
    """Print the JSON Schema of a configuration file, for editors."""
    from deployer.config.guide import schema as json_schema

    data = json_schema()
    emit(options, json.dumps(data, indent=2), data)
