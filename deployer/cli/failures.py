"""The one place where errors become text, JSON and exit codes. Nothing that goes wrong shows a traceback unasked."""

import json
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

import click

from deployer.cli.program import Options
from deployer.cli.text import indented, may_colour, paint, write
from deployer.errors import DeployerError, Interrupted, InvalidInput, StorageFailed
from deployer.storage.folder import storage_failed


def tell(raised: BaseException, options: Options) -> int:
    """Tells what was raised, in the form that was asked for, and returns the exit code."""
    error = as_error(raised)
    error.help = options.spelled(error.help)
    shown = as_json(error) if options.progress == "json" else render(error, colour=may_colour(sys.stderr))
    write(sys.stderr, shown + "\n")
    if options.output == "json":
        write(sys.stdout, as_json(error) + "\n")
    return error.exit_code


def as_error(error: BaseException) -> DeployerError:
    """What was raised, as one of our errors: usage errors of the command line are ours, and so are defects."""
    match error:
        case DeployerError():
            return error
        case click.ClickException():
            text = error.format_message().rstrip(".")
            context: click.Context | None = getattr(error, "ctx", None)
            path = context.command_path if context else "deployer"
            return InvalidInput(text[:1].lower() + text[1:], help=f"{path} --help")
        case KeyboardInterrupt():
            return Interrupted("interrupted by SIGINT")
        case FileNotFoundError() if error.filename is None:
            return StorageFailed("the working directory is not there any more", help="cd ~")
        case OSError():
            unwritten = StorageFailed("the result could not be written", detail=error.strerror or str(error))
            return storage_failed("cannot use", Path(error.filename), error) if error.filename else unwritten
        case _:
            return _defect(error)


def render(error: DeployerError, *, colour: bool) -> str:
    """The four parts, each where there is one: what happened, why, what is true now, what to type."""
    lines = [paint("deployer: ", "red", colour=colour) + paint(indented(error.message, "  "), "bold", colour=colour)]
    if excerpt := getattr(error, "excerpt", ""):
        lines.append("  | " + indented(excerpt, "  | "))
    parts = {"cause": error.detail, "now": error.remains, "log": getattr(error, "log", ""), "next": error.help}
    lines += [f"  {label + ':':<7}{indented(text, ' ' * 9)}" for label, text in parts.items() if text]
    return "\n".join(lines)


def as_json(error: DeployerError) -> str:
    return json.dumps({"error": error.as_dict()}, default=str)


def _defect(error: BaseException) -> DeployerError:
    place = traceback.extract_tb(error.__traceback__)[-1]
    kept = "could not be written"
    with suppress(OSError):
        descriptor, kept = tempfile.mkstemp(".log", "deployer-error-")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    return DeployerError(
        "internal error: a defect of deployer itself",
        detail=f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}; the traceback: {kept}",
        remains="What was saved before stands; `deployer list` shows it.",
        help="deployer list",
    )
