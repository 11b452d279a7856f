"""What commands are made of: the options that each has, before or after its name, and those that several share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from deployer.storage.folder import find_home


@dataclass
class Options:
    """The common options as far as the command line has been read; what comes later wins."""

    home: Path | None = None
    output: Literal["text", "json"] = "text"
    progress: Literal["auto", "plain", "json", "none"] = "auto"
    verbose: bool = False
    lock_timeout: float = 0.0

    def where(self) -> Path:
        """The home, as the library finds it; costs no import of it."""
        return self.home or find_home(Path.cwd(), os.environ)


def command(
    *parameters: click.Parameter, example: str, kind: type[click.Command] = click.Command
) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function a command of that name; it is given `Options` first. `example` stands at the end of its help."""

    def make(function: Callable[..., Any]) -> click.Command:
        return click.command(
            cls=kind,
            params=[*parameters, *COMMON],
            short_help=str(function.__doc__).split("\n", 1)[0].rstrip("."),
            epilog="\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines()),
        )(click.pass_obj(function))

    return make


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


_PATH = click.Path(path_type=Path)
_HOME_HELP = "Where environments are kept (default: DEPLOYER_HOME, or the nearest .deployer upwards)."
_WAIT_HELP = "How long to wait while another process works on the environment (default: not at all)."
_PROGRESS = click.Choice(["auto", "plain", "json", "none"])

COMMON: list[click.Parameter] = [
    _common("--home", type=_PATH, help=_HOME_HELP),
    _common("--output", type=click.Choice(["text", "json"]), help="Form of the result."),
    _common("--progress", type=_PROGRESS, help="Form of the progress, on stderr."),
    _common("--verbose", "-v", is_flag=True, help="Show what the tools say, too."),
]
NAME = click.Argument(["name"], shell_complete=names)
MAYBE_NAME = click.Argument(["name"], required=False, shell_complete=names)
FILE = click.Option(["-f", "--file"], required=True, type=_PATH, help="The configuration file.")
MAYBE_FILE = click.Option(["-f", "--file"], type=_PATH, help="Take over a changed configuration file.")
FROM_START = flag("--from-start", help="Do the whole phase again, finished steps included.")
YES = flag("--yes", "-y", help="Do not ask.")
LOCK_TIMEOUT = _common("--lock-timeout", type=click.FloatRange(min=0.0), metavar="SECONDS", help=_WAIT_HELP)
