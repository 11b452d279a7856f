"""The one place where errors become text, JSON and exit codes. Nothing that goes wrong shows a traceback unasked."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import traceback
from pathlib import Path

import click

from deployer.cli.choices import Options
from deployer.cli.text import BOLD, RED, indented, paint
from deployer.errors import DeployerError, Interrupted, InvalidInput, StepFailed, StorageFailed


def as_error(error: BaseException, options: Options) -> DeployerError:
    """What was raised, as one of our errors: usage errors of the command line are ours, and so are defects."""
    match error:
        case DeployerError():
            return error
        case click.UsageError():
            path = error.ctx.command_path if error.ctx is not None else "deployer"
            return InvalidInput(
                _sentence(error.format_message()), remains="Nothing was changed.", help=f"{path} --help"
            )
        case click.ClickException():
            return InvalidInput(
                _sentence(error.format_message()), remains="Nothing was changed.", help="deployer --help"
            )
        case KeyboardInterrupt():
            return Interrupted("interrupted by SIGINT", signum=signal.SIGINT, remains="Nothing was changed.")
        case OSError() if error.filename is None:
            return StorageFailed("the result could not be written", detail=error.strerror or str(error))
        case _:
            return _defect(error, options)


def render(error: DeployerError, *, colour: bool) -> str:
    """The four parts, each where there is one: what happened, why, what is true now, what to type."""
    lines = [paint("deployer: ", RED, colour=colour) + paint(indented(error.message, "  "), BOLD, colour=colour)]
    parts = {"cause": error.detail, "now": error.remains, "log": "", "next": error.help}
    if isinstance(error, StepFailed):
        parts["log"] = error.log
        if error.excerpt:
            lines.append("  | " + indented(error.excerpt, "  | "))
    for label, text in parts.items():
        if text:
            lines.append(f"  {label + ':':<7}{indented(text, ' ' * 9)}")
    return "\n".join(lines)


def as_json(error: DeployerError) -> str:
    return json.dumps({"error": error.as_dict()}, default=str)


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".") if text[1:2].islower() else text.rstrip(".")


def _defect(error: BaseException, options: Options) -> DeployerError:
    story = "".join(traceback.format_exception(error))
    where = "it is above" if options.verbose else _write(story, options)
    if options.verbose:
        click.echo(story, err=True)
    return DeployerError(
        "internal error: a defect of deployer itself",
        detail=f"{type(error).__name__} in {_place(error)}; the traceback: {where}",
        remains="What was saved before stands; `deployer list` shows it.",
        help="the same command with --verbose",
    )


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def _write(story: str, options: Options) -> str:
    """Writes the traceback into the home, or, where there is none, into the system's folder for such things."""
    from deployer import Deployer

    for temporary in (False, True):
        try:
            folder = Path(tempfile.gettempdir()) if temporary else Deployer(options.home).home
            descriptor, name = tempfile.mkstemp(prefix="internal-error-", suffix=".log", dir=folder)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(story)
        except Exception:  # noqa: BLE001, S112 - the next folder, or none: this must not fail on top
            continue
        return name
    return "could not be written"
