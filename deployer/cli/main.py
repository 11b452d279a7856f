"""The program's entry: reads the command line, calls the command, tells what went wrong. Knows no command's work."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TextIO

import click

from deployer.cli.commands import program
from deployer.cli.failures import tell
from deployer.cli.program import Options

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
        code = tell(error, options)
    for stream in (sys.stdout, sys.stderr):
        _settle(stream)
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


def _settle(stream: TextIO) -> None:
    """Nothing is left in the stream, whatever has become of it: the interpreter's last flush to a closed terminal would
    fail, and turn our exit code into its 120."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
