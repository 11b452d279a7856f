"""The program's entry: reads the command line, calls the command, tells what went wrong. Knows no command's work."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import select
import sys
from collections.abc import Sequence
from typing import TextIO

from deployer.cli.choices import Chosen

_COMPLETE = "_DEPLOYER_COMPLETE"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line (this process's, if not given) and returns its exit code. Prints all there is to print."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    chosen = Chosen()
    try:
        code = _run(arguments, chosen)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place where everything ends
        code = 0 if isinstance(error, BrokenPipeError) and _reader_has_gone() else _tell(error, chosen, arguments)
    _settle(sys.stderr)
    return code


def _run(arguments: list[str], chosen: Chosen) -> int:
    if len(arguments) == 2 and arguments[0] == "status" and not arguments[1].startswith("-"):
        # Prompts ask this at every line typed, and reading the command line is a good part of what it costs.
        from deployer import Deployer

        print(Deployer().status(arguments[1]), flush=True)
        return 0

    import click
    from click.exceptions import Exit, NoArgsIsHelpError

    from deployer.cli.program import program

    try:
        if instruction := os.environ.get(_COMPLETE):
            from click.shell_completion import shell_complete

            return shell_complete(program, {"obj": chosen}, "deployer", _COMPLETE, instruction)
        # Not click's own `main`: it has answers of its own to Ctrl+C and to a broken pipe.
        with program.make_context("deployer", arguments, obj=chosen) as context:
            code = program.invoke(context)
        return code if isinstance(code, int) else 0
    except Exit as end:  # `--help`, `--version`
        return end.exit_code
    except NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0


def _prepare_streams() -> None:
    """A stream that was closed (`>&-`) becomes the void, lest a state file opened later takes its number."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - these live as long as we do
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name we cannot spell in this locale is no failure


def _tell(raised: BaseException, chosen: Chosen, arguments: Sequence[str]) -> int:
    from deployer.cli.failures import as_error, as_json, render
    from deployer.cli.progress import write
    from deployer.cli.text import may_colour

    # A line that could not be read to its end may still say how its error shall look.
    if "--output=json" in arguments or ("--output", "json") in itertools.pairwise(arguments):
        chosen.set("output", "json")
    error = as_error(raised, chosen.options)
    if chosen.options.progress == "json":
        write(sys.stderr, as_json(error) + "\n")
    else:
        write(sys.stderr, render(error, colour=may_colour(sys.stderr)) + "\n")
    if chosen.options.output == "json":
        write(sys.stdout, as_json(error) + "\n")
        _settle(sys.stdout)
    return error.exit_code


def _settle(stream: TextIO) -> None:
    """Nothing is left in the stream, whatever has become of it: the interpreter's last flush to a closed terminal would
    fail, and turn our exit code into its 120."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _reader_has_gone() -> bool:
    """`deployer list | head -1`: whether who read our result has had enough. What was to be done is done then.

    Asked of the system: a pipe of our own to a child may break too, and that is a failure.
    """
    poll = select.poll()
    poll.register(sys.stdout, 0)
    gone = any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
    return gone


if __name__ == "__main__":
    sys.exit(main())
