"""The program: its commands, in the order in which they are used, and its own help."""

from __future__ import annotations

import difflib

import click

from deployer import __version__
from deployer.cli import looks, runs
from deployer.cli.options import COMMON

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
        return list(self.commands)  # click would sort them

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        close = difflib.get_close_matches(args[0], self.commands, n=1)
        if close and close != args[:1]:
            raise click.UsageError(f"no such command {args[0][:60]!r}; did you mean {close[0]}?", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Group, params=[*COMMON], epilog=_EPILOG, invoke_without_command=True)
@click.version_option(__version__, message="deployer %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """Environments of machines, from a short YAML file to configured hosts and back to nothing."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for command in (
    *(looks.init, looks.validate, looks.schema),
    *(runs.create, runs.up, runs.plan, runs.provision, runs.configure, runs.destroy),
    *(looks.status, looks.show, looks.list, looks.ssh, looks.logs, looks.inventory, looks.doctor),
):
    program.add_command(command)
