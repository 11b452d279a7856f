"""The options that every command has, before or after its name, and the kinds of command that take them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import click

from deployer.cli.choices import Chosen


def _keep(ctx: click.Context, param: click.Parameter, value: object) -> None:
    if value is not None:
        ctx.ensure_object(Chosen).set(str(param.name), value)


def _common() -> list[click.Parameter]:
    # Eager: an error found later on the line is told in the form that was asked for.
    shared: dict[str, Any] = {"expose_value": False, "callback": _keep, "is_eager": True, "default": None}
    return [
        click.Option(
            ["--home"],
            type=click.Path(path_type=Path),
            help="Where environments are kept (default: DEPLOYER_HOME, or the nearest .deployer upwards).",
            **shared,
        ),
        click.Option(["--output"], type=click.Choice(["text", "json"]), help="Form of the result.", **shared),
        click.Option(
            ["--progress"],
            type=click.Choice(["auto", "plain", "json", "none"]),
            help="Form of the progress, on stderr.",
            **shared,
        ),
        click.Option(["--verbose", "-v"], is_flag=True, help="Show what the tools say, too.", **shared),
    ]


class Command(click.Command):
    """A command with the common options and, in its help, an example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.short_help = (self.help or "").split("\n", 1)[0].rstrip(".")
        self.params += _common()
        self.epilog = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines()) if example else None


class Group(click.Group):
    """The program. A command's module is imported when that command is called; `table` says where it is."""

    def __init__(self, *args: Any, table: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._table = table
        self.params += _common()

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._table:
            return None
        module = importlib.import_module(self._table[cmd_name])
        return cast(click.Command, getattr(module, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._table and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], self._table, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(self._table)}"
            raise click.UsageError(f"there is no command {args[0][:60]!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def command(*, example: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a function a command of that name. `example` is shown at the end of its help."""
    return click.command(cls=Command, example=example)


def environment_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For shell completion: the names in the home, from the directories alone."""
    from deployer import Deployer

    try:
        home = Deployer(ctx.find_root().ensure_object(Chosen).options.home).home
        return sorted(p.name for p in (home / "environments").iterdir() if p.name.startswith(incomplete))
    except Exception:  # noqa: BLE001 - a shell that completes wants no other answer
        return []


def names_and_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """For shell completion of FILE-or-NAME."""
    from click.shell_completion import CompletionItem

    names: list[Any] = list(environment_names(ctx, param, incomplete))
    return names or [CompletionItem(incomplete, type="file")]


def name_argument(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.argument("name", required=required, shell_complete=environment_names)


file_option = click.option(
    "-f", "--file", required=True, type=click.Path(path_type=Path), help="The configuration file."
)
from_start_option = click.option(
    "--from-start", is_flag=True, help="Do the whole phase again, finished steps included."
)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
lock_timeout_option = click.option(
    "--lock-timeout",
    type=click.FloatRange(min=0.0),
    default=0.0,
    metavar="SECONDS",
    help="How long to wait while another process works on the environment (default: not at all).",
)
