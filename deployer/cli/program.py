"""What commands are made of: the program that they join, the options that each has, before or after its name, and what
these give it: the library, and its result's way out."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from glob import escape, glob
from pathlib import Path
from typing import Any, Literal

import click

import deployer
from deployer.cli.text import finished_text
from deployer.errors import DeployerError
from deployer.storage.folder import find_home


@dataclass
class Options:
    """The common options as far as the command line has been read (what comes later wins), and what they give."""

    home: Path | None = None
    output: Literal["text", "json"] = "text"
    progress: Literal["auto", "plain", "json", "none"] = "auto"
    verbose: bool = False
    lock_timeout: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def where(self) -> Path:
        """The home, as the library finds it; costs no import of it."""
        return find_home(Path.cwd(), os.environ, self.home)

    def reading(self) -> deployer.Deployer:
        """The library, for a command that looks only."""
        return deployer.Deployer(self.home)

    @contextmanager
    def working(self) -> Iterator[deployer.Deployer]:
        """The library with its progress on stderr; Ctrl+C and SIGTERM are requests to stop while the block runs."""
        from deployer.cli.progress import progress
        from deployer.process import Interrupts

        with progress(self, sys.stderr) as report, Interrupts().listening() as interrupts:
            yield deployer.Deployer(self.home, report=report, interrupts=interrupts, lock_timeout=self.lock_timeout)

    def spelled(self, text: str) -> str:
        """Commands to paste: with the home that was named, as another may have an environment of the same name, and
        with OpenTofu's path where PATH does not have it."""
        from deployer.tofu.binary import typed

        home = self.home and os.path.abspath(os.path.expanduser(self.home))
        named = f"deployer --home {shlex.quote(home)}" if home else "deployer"
        # Where a command begins: at a line's beginning, or after prose. Not in a path, whose folder may be called so.
        words = re.compile(r"(?:^|(?<=: )|(?<=&& )|(?<=`))(?:deployer|tofu)(?= [a-z])", re.MULTILINE)
        # PATH is looked through only where there is a `tofu`: most texts have none, and `list` has many.
        return words.sub(lambda found: named if found[0] == "deployer" else typed(os.environ), text)

    def overview(self, facts: dict[str, Any]) -> dict[str, Any]:
        """An overview's data, as it is shown."""
        return facts | {"next_commands": [*map(self.spelled, facts["next_commands"])]}

    def emit(self, text: str, data: object) -> None:
        """The result to stdout, in the form that was asked for; `data` may have the library's records in it."""
        click.echo(json.dumps(data, default=asdict) if self.output == "json" else text)

    def change(self, act: Callable[[deployer.Deployer], str]) -> None:
        """Does what changes an environment; then, after the progress has ended, shows what `act` left behind under the
        name that it returned."""
        with self.working() as library:
            name = act(library)
        overview = self.overview(self.reading().show(name).as_dict())
        self.emit(finished_text(overview, time.monotonic() - self.began), overview)


class Program(click.Group):
    """Its help names the commands in the order in which they were added."""

    def __init__(self, *, help: str | None, **attributes: Any) -> None:
        super().__init__(**attributes | _help(help), context_settings={"help_option_names": ["-h", "--help"]})

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
    """For shell completion: the names in the home, from the directories alone, or of the hosts of the environment that
    was typed before; where a file may be meant, YAML files too, or else any file."""
    options, found = ctx.find_root().ensure_object(Options), list[str]()
    with suppress(DeployerError, OSError):
        known = [path.name for path in (options.where() / "environments").glob("*")]
        if param.name == "host":
            known = [*options.reading().show(ctx.params["name"]).hosts]
        found = sorted(name for name in known if name.startswith(incomplete))
    if isinstance(param.type, click.Path):  # a shell takes files from us that are names, or looks for them by itself
        found += sorted(glob(escape(incomplete) + "*.y*ml"))
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
