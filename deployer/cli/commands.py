"""The program's commands, in the order in which they are used and its help names them. They decide nothing.

With their questions to whoever sits at the terminal, asked before a run: nothing is drawn there meanwhile.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deployer import __version__
from deployer.cli.program import COMMON, LOCK_TIMEOUT, Options, Program, flag, names
from deployer.cli.text import moment, show_text, table
from deployer.errors import Declined, Interrupted, InvalidInput, ToolMissing
from deployer.events import printable
from deployer.files import word
from deployer.storage.glance import glance

if TYPE_CHECKING:
    from deployer.workflows.review import Changes, Confirm

NAME = click.Argument(["name"], shell_complete=names)
_FILE = click.Option(["-f", "--file"], type=click.Path(), help="The same as FILE.")
FILE = (click.Argument(["meant"], metavar="FILE", default="", type=click.Path()), _FILE)
_MEANT = click.Argument(["meant"], metavar="FILE-or-NAME", default="", type=click.Path(), shell_complete=names)
FILE_OR_NAME = (_MEANT, _FILE)
FROM_START = flag("--from-start", help="Run all steps again, finished ones included.")
YES = flag("--yes", "-y", help="Do not ask.")


@click.group(cls=Program, params=[*COMMON], invoke_without_command=True)
@click.version_option(__version__, message="deployer %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Environments of machines, from a short YAML file to configured hosts and back to nothing.

    Example:
      deployer init                    write a commented demo.yml
      deployer up demo.yml             make it
      deployer destroy demo            take everything away

    Shell completion:
      eval "$(_DEPLOYER_COMPLETE=bash_source deployer)"    also zsh_source, fish_source

    Exit codes:
      0 done, 1 a step failed, 2 usage or invalid file, 3 wrong state, 4 locked,
      5 unreadable state, 6 a tool is missing or too old, 130 interrupted
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@program.add(click.Argument(["directory"], default=".", type=click.Path(path_type=Path, file_okay=False)))
def init(options: Options, directory: Path) -> None:
    """Write a commented demo.yml that works as it stands.

    Example:
      deployer init demo        # writes demo/demo.yml
    """
    file = directory / options.reading().init(directory).name
    next_command = f"cd {shlex.quote(str(directory))} && deployer up {file.name}"
    if options.home or directory == Path():  # otherwise the home is the one that was made there
        next_command = options.spelled(f"deployer up {shlex.quote(str(file))}")
    options.emit(f"Wrote {printable(str(file))}\nNext: {next_command}", {"file": str(file)})


@program.add(*FILE)
def validate(options: Options, meant: str, file: str | None) -> None:
    """Check a configuration file; nothing is made or changed.

    Example:
      deployer validate demo.yml
    """
    path = Path(wanted(meant, file))
    spec = options.reading().validate(path)
    facts = {"name": spec.name, "hosts": [*spec.hosts], "playbooks": spec.configure.playbooks}
    text = f"{printable(f'{path}: ok, environment {spec.name}')}\nNext: deployer up {word(path)}"
    options.emit(options.spelled(text), {"valid": True, "file": str(path), **facts})


@program.add()
def schema(options: Options) -> None:
    """Print the JSON Schema of a configuration file, for editors.

    Example:
      deployer schema > .deployer/schema.json
    """
    from deployer.config.model import schema as json_schema

    data = json_schema()
    options.emit(json.dumps(data, indent=2), data)


@program.add(*FILE, LOCK_TIMEOUT)
def create(options: Options, meant: str, file: str | None) -> None:
    """Accept a file as a new environment.

    Nothing is made yet.

    Example:
      deployer create demo.yml
    """
    options.change(lambda deployer: deployer.create(wanted(meant, file)).name)


@program.add(*FILE_OR_NAME, FROM_START, YES, LOCK_TIMEOUT)
def up(options: Options, meant: str, file: str | None, from_start: bool, yes: bool) -> None:
    """Do all that is left to do until it is configured.

    FILE makes the environment, or applies what has changed in the file, and asks before. NAME goes on with it.

    Example:
      deployer up demo.yml       # typed again, it goes on, or takes over what changed in the file
    """
    which = wanted(meant, file)
    asked = confirm(yes=yes, again=f"deployer up {shlex.quote(which)}")
    options.change(lambda deployer: deployer.up(which, from_start=from_start, confirm=asked).name)


@program.add(*FILE_OR_NAME, LOCK_TIMEOUT)
def plan(options: Options, meant: str, file: str | None) -> None:
    """Show what OpenTofu would do now; nothing is changed.

    Example:
      deployer plan demo
      deployer plan demo.yml     # with what changed in the file
    """
    with options.working() as deployer:
        found = deployer.plan(wanted(meant, file))
    data = {"name": found.environment, "empty": found.plan.empty, "summary": found.plan.summary}
    options.emit(changes_text(found), data | {"file_changes": found.spec, "changes": found.plan.changes})


@program.add(*FILE_OR_NAME, FROM_START, YES, LOCK_TIMEOUT)
def provision(options: Options, meant: str, file: str | None, from_start: bool, yes: bool) -> None:
    """Make the machines and wait until they are ready.

    Example:
      deployer provision demo
      deployer provision demo.yml --yes     # with what changed in the file
    """
    which = wanted(meant, file)
    asked = confirm(yes=yes, again=f"deployer provision {shlex.quote(which)}")
    options.change(lambda deployer: deployer.provision(which, from_start=from_start, confirm=asked).name)


@program.add(NAME, FROM_START, LOCK_TIMEOUT)
def configure(options: Options, name: str, from_start: bool) -> None:
    """Run the playbooks on the machines.

    Example:
      deployer configure demo
    """
    options.change(lambda deployer: deployer.configure(name, from_start=from_start).name)


_ABANDON = flag("--abandon", help="You have looked, and nothing exists any more: OpenTofu is not asked.")


@program.add(NAME, YES, _ABANDON, LOCK_TIMEOUT)
def destroy(options: Options, name: str, yes: bool, abandon: bool) -> None:
    """Take everything away that was made.

    Example:
      deployer destroy demo
      deployer destroy demo --yes     # in a script
    """
    if not yes and (found := options.reading().show(name)).state != "destroyed":
        question = f"Forget {name} without asking OpenTofu?" if abandon else f"Destroy {name}?"
        again = f"deployer destroy {name}" + (" --abandon" if abandon else "")
        ask(f"{name} is {found.state}. {found.exists}", question, again=again)
    options.change(lambda deployer: deployer.destroy(name, abandon=abandon).name)


@program.add(NAME)
def status(options: Options, name: str) -> None:
    """Print the state and nothing else.

    Example:
      deployer status demo
    """
    # Prompts ask this at every line typed: a glance costs a fraction of what loading the library does.
    state = glance(options.where(), name) or options.reading().status(name)
    options.emit(state, {"name": name, "state": state})


@program.add(NAME, flag("--refresh", help="Compare with reality: OpenTofu's refresh, and whether hosts answer."))
def show(options: Options, name: str, refresh: bool) -> None:
    """Show everything about an environment, and what to type next.

    Example:
      deployer show demo
      deployer show demo --refresh     # compared with what is really there
    """
    with options.working() as deployer:
        overview = options.overview(deployer.show(name, refresh=refresh).as_dict())
    options.emit(show_text(overview, options.spelled), overview)


@program.add()
def list_(options: Options) -> None:
    """List all environments of this home, destroyed ones too.

    Example:
      deployer list
    """
    entries = options.reading().list()
    rows = [("NAME", "STATE", "RESOURCES", "CHANGED", "")]
    for e in entries:
        changed = moment(e.changed_at) if e.changed_at else ""
        note = e.problem or ("interrupted" if e.interrupted else "at work" if e.busy else "")
        rows.append((e.name, e.state or "?", e.resources, changed, note))
    none = f"No environments in {options.where()}\nNext: deployer up FILE    # deployer init writes one"
    options.emit(table(rows) if entries else options.spelled(none), [options.overview(e.as_dict()) for e in entries])


class _Ssh(click.Command):
    """What comes after `--` belongs to the machine: click would mix it with HOST."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.params["remote_command"] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@program.add(NAME, click.Argument(["host"], required=False, shell_complete=names), kind=_Ssh)
def ssh(options: Options, name: str, host: str | None, remote_command: list[str]) -> None:
    """Log in to a host, or run a command there.

    deployer ssh NAME [HOST] [-- COMMAND]

    Example:
      deployer ssh demo
      deployer ssh demo web -- sudo systemctl status nginx
    """
    argv = options.reading().ssh_command(name, host, remote_command)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - ssh takes our place: its terminal, its signals, its exit code
    except OSError as error:
        raise ToolMissing(f"{argv[0]} cannot be started", detail=str(error.strerror), help="deployer doctor") from None


@program.add(NAME)
def logs(options: Options, name: str) -> None:
    """Print the log of the last run.

    `show` names it; those of earlier runs are beside it.

    Example:
      deployer logs demo | tail -20
    """
    path = options.reading().show(name).log
    text = Path(path).read_text(encoding="utf-8", errors="replace") if path else ""
    options.emit(printable(text).removesuffix("\n"), {"log": path, "text": text})


_ALL = flag("--list", "listed", help="All hosts and their variables (the default).")
_ONE = click.Option(["--host"], metavar="HOST", help="The variables of one host.")


@program.add(click.Argument(["name"], required=False, shell_complete=names), _ALL, _ONE)
def inventory(options: Options, name: str | None, listed: bool, host: str | None) -> None:
    """Print Ansible's dynamic inventory, as JSON.

    Example:
      deployer inventory demo --list
      DEPLOYER_ENVIRONMENT=demo ansible-playbook -i inventory/deployer site.yml
    """
    if listed and host:
        raise click.UsageError("give either --list or --host")
    with options.working() as deployer:
        found: Any = deployer.inventory(name)
    data, known = found, found["_meta"]["hostvars"]
    if host and (data := known.get(host)) is None:
        detail = f"its hosts are {', '.join(known) or 'none'}"
        raise InvalidInput(f"the inventory has no host {host}", detail=detail, help="deployer inventory --list")
    options.emit(json.dumps(data, indent=2), data)


@program.add(flag("--install", help="Bring OpenTofu where it is missing."))
def doctor(options: Options, install: bool) -> int:
    """Check every tool that is needed.

    Says what to type for each that is missing; exit code 6 then.

    Example:
      deployer doctor
      deployer doctor --install     # brings OpenTofu
    """
    with options.working() as deployer:
        checks = deployer.doctor(install=install)
    rows = [("ok" if c.ok else "missing", c.name, c.detail if c.ok else f"{c.detail}; type: {c.fix}") for c in checks]
    fine = all(check.ok for check in checks)
    options.emit(table(rows), {"ok": fine, "checks": checks})
    return 0 if fine else ToolMissing.exit_code


def wanted(meant: str, file: str | None) -> str:
    """What a command is to work with: a file, with or without -f, or an environment's name."""
    if bool(meant) == bool(file):
        context = click.get_current_context()
        raise click.UsageError(f"give one {context.command.params[0].make_metavar(context)}", context)
    return meant or os.path.join(".", str(file))


def ask(text: str, question: str, *, again: str) -> bool:
    """Shows `text` and asks. Raises Declined at a no, or where nobody can be asked; `again`: what to type then."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Declined(f"{question} Nobody can be asked: this is no terminal", detail=text, help=f"{again} --yes")

    def stop(signum: int, frame: object) -> None:
        with suppress(OSError):  # past what Python may just be writing there, and would refuse to be interrupted in
            os.write(2, b"\n")
        by = signal.Signals(signum)
        raise Interrupted(f"interrupted by {by.name} at the question", signum=by, help=f"{again}    # asks again")

    # While we wait for an answer there is nothing to bring to an orderly end.
    heard = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = {s: signal.signal(s, stop) for s in heard if signal.getsignal(s) is not signal.SIG_IGN}
    answer = ""
    try:
        with suppress(OSError):
            click.echo(f"{text}\n{question} [y/N] ", nl=False, err=True)
            answer = sys.stdin.readline()
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if not answer and not sys.stdin.isatty():  # the terminal was closed, and that need not have been said to us, too
        stop(signal.SIGHUP, None)
    if answer.strip().lower() not in ("y", "yes"):
        raise Declined(f"{question} The answer was no", help=f"{again}    # asks again")
    return True


def confirm(*, yes: bool, again: str) -> Confirm:
    """The library's question whether changes shall be made; with `yes` there is none."""
    return None if yes else lambda its: ask(changes_text(its), f"Make these changes to {its.environment}?", again=again)


def changes_text(changes: Changes) -> str:
    """What changed in the file, and what OpenTofu would do about it."""
    file = ["The configuration file has changed:", *changes.spec] if changes.spec else []
    would = [*(f"{change.action}  {change.address}" for change in changes.plan.changes), changes.plan.summary]
    plan = ["OpenTofu's plan:", *(["no changes to the machines"] if changes.plan.empty else would)]
    return printable("\n".join("\n  ".join(part) for part in (file, plan) if part))
