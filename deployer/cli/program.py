"""What the program is made of: a group of commands, and the options that each has, before or after its name."""

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deployer.cli.options import Options


class Program(click.Group):
    """Its help names the commands in the order in which they were added."""

    def __init__(self, *, help: str | None, **attributes: Any) -> None:
        super().__init__(**attributes | _help(help))

    def add(
        self, *parameters: click.Parameter, kind: type[click.Command] = click.Command
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Makes a function a command of that name; it is given `Options` first. Its docstring is the help."""

        def make(function: Callable[..., Any]) -> click.Command:
            name, taken = function.__name__.rstrip("_"), [*parameters, *COMMON]
            return self.command(name, cls=kind, params=taken, **_help(function.__doc__))(click.pass_obj(function))

        return make

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # click would sort them

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        close = difflib.get_close_matches(cmd_name, self.commands, n=1)
        if close and close != [cmd_name]:
            raise click.UsageError(f"no such command {cmd_name[:60]!r}; did you mean {close[0]}?", ctx)
        return super().get_command(ctx, cmd_name)


def _help(docstring: str | None) -> dict[str, Any]:
    """What click shall say: the example, and what comes after it, at the end and line by line."""
    text, _, example = inspect.cleandoc(docstring or "").partition("\n\nExample:\n")
    epilog = "\b\nExample:\n" + example.replace("\n\n", "\n\n\b\n")
    return {"help": text, "short_help": text.partition("\n")[0].rstrip("."), "epilog": epilog}


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        setattr(ctx.ensure_object(Options), str(param.name), value)


def _common(*names: str, **attributes: Any) -> click.Option:
    # Eager: an error found later on the line is told in the form that was asked for.
    return click.Option(names, expose_value=False, callback=_keep, is_eager=True, default=None, **attributes)


def flag(*names: str, help: str) -> click.Option:
    return click.Option(names, is_flag=True, help=help)


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """For shell completion: the names in the home, from the directories alone; or else files, where one is wanted."""
    folders = (ctx.find_root().ensure_object(Options).where() / "environments").glob("*")
    found = sorted(path.name for path in folders if path.name.startswith(incomplete))
    return found or param.type.shell_complete(ctx, param, incomplete)


_HOME_HELP = "Where environments are kept (default: DEPLOYER_HOME, or the nearest .deployer upwards)."
_WAIT_HELP = "How long to wait while another process works on the environment (default: not at all)."
_PROGRESS = click.Choice(["auto", "plain", "json", "none"])

COMMON: list[click.Parameter] = [
    _common("--home", type=click.Path(path_type=Path), help=_HOME_HELP),
    _common("--output", type=click.Choice(["text", "json"]), help="Form of the result."),
    _common("--progress", type=_PROGRESS, help="Form of the progress, on stderr."),
    _common("--verbose", "-v", is_flag=True, help="Show what the tools say, too."),
]
LOCK_TIMEOUT = _common("--lock-timeout", type=click.FloatRange(min=0.0), metavar="SECONDS", help=_WAIT_HELP)
