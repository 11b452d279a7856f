"""The program's entry: reads the command line, calls the command, tells what went wrong. Knows no command's work.

This is the one place where errors become text, JSON and exit codes. Nothing that goes wrong shows a traceback unasked.
"""

import contextlib
import io
import json
import os
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from deployer.cli.commands import program
from deployer.cli.program import Options
from deployer.cli.text import indented, may_colour, paint, write
from deployer.errors import DeployerError, Interrupted, InvalidInput, StorageFailed
from deployer.storage.folder import storage_failed

_COMPLETE = "_DEPLOYER_COMPLETE"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (this process's, if not given) and returns its exit code. Prints all there is to print."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may ignore it, and then no child's end is known
    _prepare_streams()
    options = Options()
    try:
        code = _run(arguments, options)
    except click.exceptions.Exit as end:  # `--help`, `--version`
        code = end.exit_code
    except BrokenPipeError:  # `deployer list | head -1`: who reads our result has had enough
        code = 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place where everything ends
        # A line that could not be read to its end may still say how its error shall look.
        if "--output json" in " ".join(arguments).replace("=", " "):
            options.output = "json"
        code = tell(error, options, again=shlex.join(("deployer", *arguments)))
    _settle_streams()
    return code


def _run(arguments: list[str], options: Options) -> int:
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(program, {"obj": options}, "deployer", _COMPLETE, instruction)
    # Not click's own `main`: it has answers of its own to Ctrl+C and to a broken pipe.
    with program.make_context("deployer", arguments, obj=options) as context:
        return int(program.invoke(context) or 0)


def _prepare_streams() -> None:
    """A stream that was closed (`>&-`) becomes the void, lest a state file opened later takes its number; one that does
    not block (Node.js leaves its children such pipes) is made to, lest what is printed to a slow reader is cut."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        os.set_blocking(descriptor, True)
        stream = getattr(sys, name) or open(descriptor, "w" if descriptor else "r", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name we cannot spell in this locale is no failure


def _settle_streams() -> None:
    """Nothing is left in a stream, whatever has become of it: the interpreter's last flush to a closed terminal would
    fail, and turn our exit code into its 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(raised: BaseException, options: Options, *, again: str = "") -> int:
    """Tells what was raised, in the form that was asked for, and returns the exit code; `again` is the command line."""
    error = as_error(raised)
    error.help = options.spelled(error.help) or (again if isinstance(error, Interrupted) else "")
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
            path = getattr(getattr(error, "ctx", None), "command_path", "deployer")
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
    with contextlib.suppress(OSError):
        descriptor, kept = tempfile.mkstemp(".log", "deployer-error-")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            traceback.print_exception(error, file=file)
    detail = f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}; the traceback: {kept}"
    problem, look = "internal error: a defect of deployer itself", "deployer list"
    return DeployerError(problem, detail=detail, remains=f"What was saved before stands; `{look}` shows it.", help=look)


if __name__ == "__main__":
    sys.exit(main())
