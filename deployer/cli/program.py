"""The commands and where they are; the program's own help. Nothing of a command is imported before it is called."""

from __future__ import annotations

import difflib
import importlib
from typing import cast

import click

from deployer import __version__
from deployer.cli.options import COMMON

_CHANGES = ("create", "up", "plan", "provision", "configure", "destroy")
COMMANDS = ("init", "validate", "schema", *_CHANGES, "status", "show", "list", "ssh", "logs", "inventory", "doctor")

_EPILOG = """\b
Example:
  deployer init                    write a commented demo.yml
  deployer up demo.yml             make it
  deployer destroy demo            take everything away

\b
Shell completion:
  eval "$(_DEPLOYER_COMPLETE=bash_source deployer)"    also zsh_source, fish_source

\b
Exit codes:
  0 done, 1 a step failed, 2 usage or invalid file, 3 wrong state, 4 locked,
  5 unreadable state, 6 a tool is missing or too old, 130 interrupted
"""


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module = importlib.import_module("deployer.cli.runs" if cmd_name in _CHANGES else "deployer.cli.looks")
            return cast(click.Command, getattr(module, cmd_name))
        if ctx.resilient_parsing or cmd_name.startswith("-"):
            return None
        close = difflib.get_close_matches(cmd_name, COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(COMMANDS)}"
        raise click.UsageError(f"there is no command {cmd_name[:60]!r}; {hint}", ctx)


@click.group(cls=_Group, params=[*COMMON], epilog=_EPILOG, invoke_without_command=True)
@click.version_option(__version__, message="deployer %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Environments of machines, from a short YAML file to configured hosts and back to nothing."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
