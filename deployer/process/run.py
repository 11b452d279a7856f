"""The only place that starts a child process: argv in, streamed lines and an outcome out. Knows no tool.

With it the requests to stop: how often and by which signal. Waits ask for them; no signal handler raises anything.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol, Self

from deployer.errors import FailureKind, Interrupted, StepFailed, ToolMissing
from deployer.events import Notice, Report, ignore, printable
from deployer.process.identity import ProcessIdentity, identity_of

Stream = Literal["stdout", "stderr"]

# The child waits for one line on its stdin before it becomes the tool, with the same pid. Where we die first it reads
# end-of-file and exits by itself: no tool ever runs without being on record. argv passes through "$@", untouched.
# The shell adds PWD to the environment by itself; the tool shall see only what it was given.
_GATE = 'read -r gate || exit 125; unset gate PWD OLDPWD SHLVL; exec "$@" </dev/null'

_STOPPING = (
    "asked {0} to stop after {1:.0f} s{2}; we wait for it to finish what is in flight; another Ctrl+C stops it at once",
    "stopping {0} at once; what was in flight may exist without anybody knowing it",
    "killing {0}; what was in flight may exist without anybody knowing it",
)
_LONGEST_LINE = 1024 * 1024
_PAUSE = 0.02  # seconds between two looks at a child that says nothing


class Interrupts:
    """Counts requests to stop. The first asks for an orderly end, the second for an end at once."""

    def __init__(self) -> None:
        self.count = 0
        self.signum = signal.SIGINT

    def request(self, signum: int = signal.SIGINT) -> None:
        if self.count == 0:
            self.signum = signal.Signals(signum)
        self.count += 1

    def check(self, doing: str, detail: str = "") -> None:
        """Raises Interrupted where a stop was requested; `doing` says what is left undone."""
        if self.count:
            raise Interrupted(f"interrupted by {self.signum.name} at {doing}", signum=self.signum, detail=detail)

    def sleep(self, seconds: float, doing: str) -> None:
        """Waits, in slices short enough that a stop is noticed within 0.2 s. Raises Interrupted then."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.check(doing)
            time.sleep(min(0.2, left))
        self.check(doing)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Self]:
        """SIGINT, SIGTERM, SIGHUP are counted here while the block runs. For the main thread."""
        # Under nohup, the user wants the run to outlive the terminal.
        hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else []
        wanted = (signal.SIGINT, signal.SIGTERM, *hangup)
        before = {s: signal.signal(s, lambda signum, frame: self.request(signum)) for s in wanted}
        try:
            yield self
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


class Deadline:
    """A time limit in seconds that does not count time this process could not run (SIGSTOP, a suspended laptop).

    Ask for `left` at least every few seconds: a longer gap between two questions counts as `stride`.
    """

    def __init__(self, seconds: float, *, stride: float = 20.0) -> None:
        self.seconds = seconds
        self._stride = stride
        self.spent = 0.0
        self._last = time.monotonic()

    @property
    def left(self) -> float:
        now = time.monotonic()
        self.spent += min(now - self._last, self._stride)
        self._last = now
        return self.seconds - self.spent


class Register(Protocol):
    """Where running children are on record, so that one which outlives us is found (the lock's record)."""

    def child_started(self, child: ProcessIdentity, doing: str) -> None: ...
    def child_ended(self, child: ProcessIdentity) -> None: ...


@dataclass(frozen=True)
class Context:
    """What all work is done with: the whole environment of its children, the user's wish to stop, whom to tell what
    happens, and where children are on record."""

    environ: Mapping[str, str] = field(repr=False)  # may hold secrets
    interrupts: Interrupts = field(default_factory=Interrupts)
    report: Report = ignore
    register: Register | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """A child to run. `doing` names it for people; `timeout` is in seconds.

    To stop it, SIGINT is sent once: at the first Ctrl+C, or at the time limit. It is sent again at the next Ctrl+C, or
    `grace` seconds after the time limit; the child is killed `kill_after` seconds later. Whoever has killed it, what is
    left of its process group is killed then; where it has heeded SIGINT, that is sent one, as Ctrl+C would do.
    """

    argv: tuple[str, ...]
    doing: str
    cwd: Path
    timeout: float
    grace: float = 60.0
    kill_after: float = 15.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a child ended. `tail` is the end of what it said on stderr; `returncode` is negative for a signal."""

    returncode: int
    seconds: float
    tail: tuple[str, ...]
    timed_out: bool
    interrupted: bool


def run(request: Request, context: Context, on_line: Callable[[Stream, str], None]) -> Outcome:
    """Runs the child in a session of its own and streams its lines until it ends.

    A first request to stop is forwarded once, a second asks it to stop at once; the user is told of each. With a
    register the child is on record before it becomes the tool. Raises ToolMissing where the program is not there or
    does not start, StepFailed where somebody else has waited for it, and, once it has ended, whatever `on_line` raised.
    """
    register = context.register
    program = shutil.which(request.argv[0], path=context.environ.get("PATH"))
    if program is None:
        raise ToolMissing(f"{request.argv[0]} was not found", help="deployer doctor")
    argv = (program, *request.argv[1:])
    if register is not None:
        argv = ("/bin/sh", "-c", _GATE, "gate", *argv)
    tail: deque[str] = deque(maxlen=100)

    def on_stderr(line: str) -> None:
        tail.append(printable(line))
        on_line("stderr", line)

    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        out, err = _Output(stdout, lambda line: on_line("stdout", line)), _Output(stderr, on_stderr)
        try:
            child = subprocess.Popen(
                argv,
                cwd=request.cwd,
                env=context.environ,
                stdin=subprocess.PIPE if register is not None else subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            message = f"{program} does not start, needed for: {request.doing}"
            raise ToolMissing(message, detail=str(error), help="deployer doctor") from error
        identity = identity_of(child.pid) or ProcessIdentity(child.pid, "")
        stopping = _Stopping(request, child, context)
        failure: BaseException | None = None
        try:
            if register is not None and child.stdin is not None:
                with contextlib.suppress(BrokenPipeError), child.stdin as gate:
                    register.child_started(identity, request.doing)
                    gate.write(b"\n")
            while child.returncode is None:
                try:
                    if not _has_ended(child, request.doing):
                        stopping.look()
                        if failure or not out.more() | err.more():  # both, whatever the one says
                            time.sleep(_PAUSE)
                except BaseException as error:  # noqa: BLE001 - raised again once the child has ended
                    failure = failure or error
                    stopping.own += not isinstance(error, Exception)  # a Ctrl+C where nobody listens, an exit
            if failure:
                raise failure
            while out.more() | err.more():
                pass
            out.end()
            err.end()
        finally:
            _await_end(child, stopped=stopping.level > 0)
            if register is not None:
                register.child_ended(identity)
    return Outcome(
        returncode=child.returncode,
        seconds=time.monotonic() - stopping.started,
        tail=tuple(tail),
        timed_out=stopping.timed_out,
        interrupted=stopping.interrupted,
    )


def _has_ended(child: subprocess.Popen[bytes], doing: str) -> bool:
    # Not Popen.poll, which takes a child that somebody else has waited for to have ended well.
    try:
        pid, status = os.waitpid(child.pid, os.WNOHANG)
    except ChildProcessError:
        child.returncode = 0  # there is nothing more to wait for
        detail = "the program around deployer ignores SIGCHLD, or waits for children that are not its own"
        raise StepFailed(f"how {doing} ended is not known", kind=FailureKind.TOOL, detail=detail) from None
    child.returncode = os.waitstatus_to_exitcode(status) if pid else None
    return bool(pid)


def _await_end(child: subprocess.Popen[bytes], *, stopped: bool) -> None:
    # What could not be put on record finds its gate closed, and leaves by itself.
    if child.wait() < 0 or stopped:
        # What it has started would go on, and nobody would know what it makes: of a local-exec OpenTofu ends the shell,
        # and not what that was waiting for. What a shell has put into the background does not heed SIGINT.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL if child.returncode < 0 else signal.SIGINT)


def capture(
    argv: tuple[str, ...], doing: str, timeout: float, context: Context, *, cwd: Path = Path("/"), **more: str
) -> tuple[Outcome, str]:
    """Runs a short child and returns its outcome with all it wrote to stdout (at most some megabytes are sensible).

    `more` is added to its environment. It is on no record, and nobody is told how it is stopped. Raises Interrupted
    where it was asked to stop: half an answer must not be taken for one.
    """
    request = Request(argv=argv, doing=doing, cwd=cwd, timeout=timeout, grace=1.0, kill_after=1.0)
    quiet = Context({**context.environ, **more}, context.interrupts)
    lines: list[tuple[Stream, str]] = []
    outcome = run(request, quiet, lambda stream, line: lines.append((stream, line)))
    if outcome.interrupted:
        context.interrupts.check(doing)
    return outcome, "\n".join(line for stream, line in lines if stream == "stdout")


@dataclass
class _Stopping:
    """The ladder: ask once, ask again, kill. Climbed by the user's requests, by our `own`, and by the time limit."""

    request: Request
    child: subprocess.Popen[bytes]
    context: Context
    timed_out: bool = False
    interrupted: bool = False
    level: int = 0
    own: int = 0

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.request.timeout)
        self.started = self.since = time.monotonic()

    def look(self) -> None:
        wanted = min(self.context.interrupts.count + self.own, 3)
        self.interrupted = wanted > 0
        over = -self.deadline.left
        if over >= 0:
            self.timed_out = self.timed_out or not self.interrupted
            wanted = max(min(wanted + self.timed_out, 3), 1 if over < self.request.grace else 2)
        if self.level == 2 and time.monotonic() - self.since > self.request.kill_after:
            wanted = 3
        while self.level < wanted:
            self.level += 1
            self.since = time.monotonic()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                # To the child alone: it decides what its own children get (OpenTofu stops its provisioners itself).
                os.kill(self.child.pid, signal.SIGKILL if self.level == 3 else signal.SIGINT)
            limit = ", its time limit" if self.timed_out else ""
            message = _STOPPING[self.level - 1].format(self.request.doing, self.since - self.started, limit)
            self.context.report(Notice(message=message, level="warning"))


class _Output:
    """What a child writes to one of its streams, as lines.

    The child writes to an unnamed file, not to a pipe: when we are killed, a tool whose pipe breaks dies of SIGPIPE at
    its next line (OpenTofu does, in the middle of an apply and without writing its state), and one whose pipe nobody
    reads hangs. With a file it goes on to its good end. Nor can a grandchild that keeps the file open make us wait.
    """

    def __init__(self, file: IO[bytes], on_line: Callable[[str], None]) -> None:
        self._file = file.fileno()
        self._on_line = on_line
        self._read = 0
        self._partial = b""
        # Appending, whoever writes: the child, its children, one of them through /dev/stdout.
        fcntl.fcntl(self._file, fcntl.F_SETFL, fcntl.fcntl(self._file, fcntl.F_GETFL) | os.O_APPEND)

    def more(self) -> bool:
        """Reads on; False where nothing is new."""
        if os.fstat(self._file).st_size < self._read:
            self._read = 0  # a shell's `echo ... > /dev/stderr` empties the file first
        data = os.pread(self._file, 256 * 1024, self._read)
        self._read += len(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > _LONGEST_LINE:
            lines.append(self._partial)
            self._partial = b""
        for line in lines:
            self._tell(line)
        return bool(data)

    def end(self) -> None:
        """Takes what has no newline as a line, once all is read."""
        if self._partial:
            self._tell(self._partial)

    def _tell(self, line: bytes) -> None:
        self._on_line(line[:_LONGEST_LINE].decode("utf-8", errors="replace").rstrip("\r"))
