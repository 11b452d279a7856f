"""Children that misbehave in every way we know: nothing hangs, nothing is lost, nothing is left behind."""

from __future__ import annotations

import ast
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from deployer.errors import Interrupted, ToolMissing
from deployer.events import Event, Notice
from deployer.process import (
    Context,
    Deadline,
    Interrupts,
    Outcome,
    ProcessIdentity,
    Request,
    capture,
    end_trees,
    identity_of,
    is_alive,
    own_identity,
    run,
)
from tests.watching import until


class Child:
    """Runs Python programs as children and remembers what they said."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd
        self.interrupts = Interrupts()
        self.lines: list[tuple[str, str]] = []
        self.heard_at: list[float] = []
        self.stopping: list[int] = []
        self.when: dict[str, Callable[[], None]] = {}
        self.register: Register | None = None

    def on_line(self, stream: str, line: str) -> None:
        self.lines.append((stream, line))
        self.heard_at.append(time.monotonic())
        if line in self.when:
            self.when[line]()

    def report(self, event: Event) -> None:
        assert isinstance(event, Notice)
        assert event.level == "warning"
        said = ["asked a test to stop after ", "stopping a test at once", "killing a test"]
        self.stopping.append([event.message.startswith(words) for words in said].index(True) + 1)

    def python(self, program: str, *, timeout: float = 60, grace: float = 60, kill_after: float = 15) -> Outcome:
        argv = (sys.executable, "-u", "-c", textwrap.dedent(program))
        return self.run(argv, timeout=timeout, grace=grace, kill_after=kill_after)

    def sh(self, program: str, *, timeout: float = 60) -> Outcome:
        return self.run(("sh", "-c", program), timeout=timeout)

    def run(self, argv: tuple[str, ...], *, timeout: float, grace: float = 60, kill_after: float = 15) -> Outcome:
        request = Request(argv=argv, doing="a test", cwd=self.cwd, timeout=timeout, grace=grace, kill_after=kill_after)
        context = Context({"PATH": os.environ["PATH"]}, self.interrupts, self.report, self.register)
        return run(request, context, self.on_line)

    def said(self, stream: str = "stdout") -> list[str]:
        return [line for said, line in self.lines if said == stream]


class Register:
    def __init__(self) -> None:
        self.started: list[ProcessIdentity] = []
        self.ended: list[ProcessIdentity] = []

    def child_started(self, child: ProcessIdentity, doing: str) -> None:
        assert is_alive(child)
        self.started.append(child)

    def child_ended(self, child: ProcessIdentity) -> None:
        assert not is_alive(child)
        self.ended.append(child)


@pytest.fixture(params=[False, True], ids=["plain", "gated"])
def child(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Child]:
    """A child without a register, and one behind the gate: both must behave alike."""
    made = Child(tmp_path)
    made.register = Register() if request.param else None
    yield made
    if made.register is not None:
        assert made.register.started == made.register.ended


def keep(lines: list[str], stream: str, line: str) -> None:
    lines.append(line)


# Streaming


def test_lines_come_as_they_are_said(child: Child) -> None:
    outcome = child.python("""
        import time
        for n in range(4):
            print(n, flush=True)
            time.sleep(0.3)
    """)
    assert child.said() == ["0", "1", "2", "3"]
    assert outcome.returncode == 0
    assert child.heard_at[-1] - child.heard_at[0] > 0.5, "buffered to the end"
    assert not outcome.interrupted
    assert not outcome.timed_out


def test_a_child_can_wait_for_what_its_line_brought_about(child: Child, tmp_path: Path) -> None:
    """Only a line that was delivered while the child runs lets it go on."""
    answer = tmp_path / "answer"
    child.when["question"] = answer.touch
    outcome = child.python(
        """
        import os, time
        print("question", flush=True)
        while not os.path.exists("answer"):
            time.sleep(0.01)
        """,
        timeout=20,
    )
    assert outcome.returncode == 0


def test_both_streams_are_told_apart_and_the_tail_is_kept(child: Child) -> None:
    outcome = child.sh("for n in $(seq 130); do echo out$n; echo err$n >&2; done; exit 7")
    assert outcome.returncode == 7
    assert child.said() == [f"out{n}" for n in range(1, 131)]
    assert child.said("stderr") == [f"err{n}" for n in range(1, 131)]
    assert outcome.tail == tuple(f"err{n}" for n in range(31, 131))


def test_much_output_is_not_lost(child: Child) -> None:
    child.python("""
        import os
        os.write(1, b"".join(b"%d\\n" % n for n in range(200_000)))
    """)
    assert child.said() == [str(n) for n in range(200_000)]


def test_a_huge_line_is_cut_and_memory_stays_small(child: Child) -> None:
    child.python("""
        import os
        for _ in range(40):
            os.write(1, b"x" * 1_000_000)
        os.write(1, b"\\nafter\\n")
    """)
    said = child.said()
    assert said[-1] == "after"
    assert max(map(len, said)) <= 1024 * 1024
    assert sum(map(len, said)) > 10_000_000


def test_bytes_that_are_no_text(child: Child) -> None:
    outcome = child.python(r"""
        import os
        os.write(1, b"\xff\xfe caf\xe9 \x00\n\r\nCRLF\r\n\n")
        os.write(2, b"\x1b[31mred\x1b[0m \xc3(\n")
        os.write(1, "ä€𝄞".encode()[:4]); os.write(1, "ä€𝄞".encode()[4:] + b"\n")
    """)
    assert child.said() == ["\ufffd\ufffd caf\ufffd \x00", "", "CRLF", "", "ä€𝄞"]
    assert outcome.tail == ("[31mred[0m \ufffd(",), "what is kept for people cannot paint"


def test_a_last_line_without_its_end(child: Child) -> None:
    child.sh("printf 'whole\\nhalf'; printf 'half too' >&2")
    assert child.said() == ["whole", "half"]
    assert child.said("stderr") == ["half too"]


def test_a_child_that_empties_its_own_output_is_still_heard(child: Child) -> None:
    """`> /dev/stdout` opens, and empties, whatever file stands there."""
    child.sh("echo first, a long line; sleep 0.4; echo two > /dev/stdout; sleep 0.4; echo three")
    assert child.said() == ["first, a long line", "two", "three"]


def test_a_child_that_closes_its_output_is_awaited(child: Child) -> None:
    outcome = child.sh("echo x; exec >&- 2>&-; sleep 0.5; exit 3")
    assert outcome.returncode == 3
    assert outcome.seconds >= 0.5


def test_a_grandchild_that_keeps_the_output_open_does_not_make_us_wait(child: Child) -> None:
    outcome = child.sh("sleep 600 & echo $!")
    pid = int(child.said()[0])
    try:
        assert outcome.returncode == 0
        assert outcome.seconds < 10
    finally:
        os.kill(pid, signal.SIGKILL)


def test_capture_gives_stdout_alone(tmp_path: Path) -> None:
    argv = ("sh", "-c", "echo one; echo two >&2; echo three")
    outcome, text = capture(argv, "x", 30, Context({}), cwd=tmp_path)
    assert (outcome.returncode, text) == (0, "one\nthree")


# What the child is given


def test_the_child_sees_its_environment_and_nothing_else(tmp_path: Path) -> None:
    for register in (None, Register()):
        env = {"PATH": os.environ["PATH"], "SECRET": "s p'a\"c$e\n*", "EMPTY": ""}
        script = "import os, sys; sys.stdout.write(repr(dict(os.environ)))"
        argv = (sys.executable, "-I", "-c", script)
        lines: list[str] = []
        request = Request(argv=argv, doing="x", cwd=tmp_path, timeout=30)
        context = Context(env, register=register)
        assert "SECRET" not in repr(context)
        run(request, context, partial(keep, lines))
        seen = ast.literal_eval("".join(lines))
        seen.pop("LC_CTYPE", None)  # Python's own, where the locale is C
        assert seen == env


def test_arguments_pass_untouched(child: Child) -> None:
    argv = ("a b", "$(touch hacked)", "'", '"', "*", "--", "-c", "", "ü\n", "`x`", "\\")
    outcome = child.run((sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *argv), timeout=30)
    assert outcome.returncode == 0
    assert child.said() == [ascii(list(argv))]
    assert not (child.cwd / "hacked").exists()


def test_the_child_is_alone_with_its_files(child: Child) -> None:
    """No terminal input, no descriptor of ours, a session of its own, private files, our directory."""
    secret = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        child.python("""
            import os
            print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())
            print(os.read(0, 10), os.readlink("/proc/self/fd/0"))
            print(sorted(int(n) for n in os.listdir("/proc/self/fd"))[:3], len(os.listdir("/proc/self/fd")) <= 4)
            open("made", "w"); os.mkdir("folder")
            print(os.getcwd())
        """)
    finally:
        os.close(secret)
    assert child.said() == ["True True", "b'' /dev/null", "[0, 1, 2] True", str(child.cwd)]
    assert (child.cwd / "made").stat().st_mode & 0o777 == 0o600
    assert (child.cwd / "folder").stat().st_mode & 0o777 == 0o700


def test_a_missing_program(child: Child) -> None:
    with pytest.raises(ToolMissing, match="no-such-tool") as caught:
        child.run(("no-such-tool", "x"), timeout=5)
    assert caught.value.exit_code == 6
    (child.cwd / "not-executable").write_text("#!/bin/sh\n")
    with pytest.raises(ToolMissing):
        child.run((str(child.cwd / "not-executable"),), timeout=5)


def test_a_directory_that_is_gone_or_a_program_that_is_none(child: Child) -> None:
    empty = child.cwd / "empty"
    empty.write_bytes(b"\x7fELF nonsense")
    empty.chmod(0o700)
    if child.register is None:
        with pytest.raises(ToolMissing, match="does not start"):
            child.run((str(empty),), timeout=5)
    else:
        assert child.run((str(empty),), timeout=5).returncode in (2, 126, 127)
    child.cwd /= "gone"
    with pytest.raises(ToolMissing, match="does not start") as caught:
        child.sh("true")
    assert "gone" in caught.value.detail


def test_a_child_is_on_record_before_it_begins_and_until_it_ended(tmp_path: Path) -> None:
    child = Child(tmp_path)
    child.register = register = Register()
    child.sh("echo $$")
    assert [str(identity.pid) for identity in register.started] == child.said()
    assert register.ended == register.started


def test_a_child_that_cannot_be_put_on_record_never_begins(tmp_path: Path) -> None:
    class Refusing(Register):
        def child_started(self, child: ProcessIdentity, doing: str) -> None:
            super().child_started(child, doing)
            raise OSError("no space left")

    child = Child(tmp_path)
    child.register = register = Refusing()
    with pytest.raises(OSError, match="no space left"):
        child.sh("touch begun")
    assert not (tmp_path / "begun").exists()
    assert register.ended == register.started


# Stopping

COUNTS = """
    import signal, sys, time
    count = 0
    def on(signum, frame):
        global count
        count += 1
        print("signal", signum, count, flush=True)
        if count == {until}:
            time.sleep(0.3)
            sys.exit(9)
    signal.signal(signal.SIGINT, on)
    print("ready", flush=True)
    end = time.monotonic() + 50
    while time.monotonic() < end:
        time.sleep(0.05)
"""


def test_the_first_interrupt_is_forwarded_once(child: Child) -> None:
    """The child takes its time; nothing more is sent to it."""
    child.when["ready"] = child.interrupts.request
    outcome = child.python(COUNTS.format(until=99).replace("+ 50", "+ 1.5"), grace=0.1, kill_after=0.1)
    assert child.said() == ["ready", "signal 2 1"]
    assert (outcome.returncode, outcome.interrupted, outcome.timed_out) == (0, True, False)
    assert child.stopping == [1]


def test_the_second_interrupt_asks_again(child: Child) -> None:
    child.when["ready"] = child.interrupts.request
    child.when["signal 2 1"] = child.interrupts.request
    outcome = child.python(COUNTS.format(until=2))
    assert child.said() == ["ready", "signal 2 1", "signal 2 2"]
    assert (outcome.returncode, outcome.interrupted) == (9, True)
    assert child.stopping == [1, 2]


def test_the_third_kills_the_whole_group(child: Child) -> None:
    child.when["ready"] = child.interrupts.request
    child.when["signal 2 1"] = child.interrupts.request
    child.when["signal 2 2"] = child.interrupts.request
    started = "import subprocess\nprint(subprocess.Popen(['sleep', '600']).pid, flush=True)\n"
    outcome = child.python(started + textwrap.dedent(COUNTS.format(until=99)))
    assert outcome.returncode == -signal.SIGKILL
    assert child.stopping == [1, 2, 3]
    grandchild = int(child.said()[0])
    until(lambda: identity_of(grandchild) is None, 20)


def test_after_the_second_a_deaf_child_is_killed_in_time(child: Child) -> None:
    def twice() -> None:
        child.interrupts.request()
        child.interrupts.request()

    child.when["ready"] = twice
    outcome = child.python(COUNTS.format(until=99), kill_after=0.5)
    assert outcome.returncode == -signal.SIGKILL
    assert outcome.seconds < 20
    assert child.stopping == [1, 2, 3]


def test_a_time_limit_asks_asks_again_and_kills(child: Child) -> None:
    outcome = child.python(COUNTS.format(until=99), timeout=1.5, grace=0.5, kill_after=0.5)
    assert child.said() == ["ready", "signal 2 1", "signal 2 2"]
    assert (outcome.returncode, outcome.timed_out, outcome.interrupted) == (-signal.SIGKILL, True, False)
    assert 2.4 < outcome.seconds < 20


def test_a_first_ctrl_c_after_the_time_limit_stops_at_once(child: Child) -> None:
    """As the warning says. It had no effect, since the time limit had asked already."""
    child.when["signal 2 1"] = child.interrupts.request
    outcome = child.python(COUNTS.format(until=2), timeout=1.5)
    assert child.said() == ["ready", "signal 2 1", "signal 2 2"]
    assert (outcome.returncode, outcome.timed_out, outcome.interrupted) == (9, True, True)
    assert child.stopping == [1, 2]
    assert outcome.seconds < 20


def test_a_child_that_obeys_its_time_limit_ends_by_itself(child: Child) -> None:
    outcome = child.python("import time; time.sleep(60)", timeout=1)
    assert (outcome.returncode, outcome.timed_out) == (-signal.SIGINT, True)
    assert child.stopping == [1]


def test_a_child_that_said_nothing_is_stopped_as_soon_as_one_that_talks(child: Child) -> None:
    timer = threading.Timer(0.5, child.interrupts.request)
    timer.start()
    outcome = child.sh("exec sleep 30")
    assert outcome.interrupted
    assert outcome.seconds < 10
    timer.join()


def test_a_stop_requested_before_the_start_stops_the_child(child: Child) -> None:
    child.interrupts.request()
    outcome = child.python("import time; time.sleep(30); print(0)")
    assert outcome.interrupted
    assert child.said() == []
    assert outcome.seconds < 10


# What we do wrong ourselves


def test_what_a_listener_raises_waits_for_the_end_of_the_child(child: Child) -> None:
    def fail() -> None:
        raise KeyError("a defect of ours")

    child.when["one"] = fail
    with pytest.raises(KeyError, match="a defect of ours"):
        child.sh("echo one; sleep 0.5; echo two; touch done")
    assert (child.cwd / "done").exists()
    assert child.said() == ["one"], "who failed once is not asked again"


def test_an_exit_in_a_listener_ends_the_child_in_order(child: Child) -> None:
    child.when["ready"] = sys.exit
    with pytest.raises(SystemExit):
        child.python("""
            import signal, sys, time
            def on(signum, frame):
                sys.stdout.write("x" * 3_000_000)  # more than any pipe holds
                open("ended", "w").close()
                sys.exit()
            signal.signal(signal.SIGINT, on)
            print("ready")
            time.sleep(60)
        """)
    assert (child.cwd / "ended").exists()


OURSELVES = """
import os, sys
from pathlib import Path
from deployer.process import Context, Interrupts, Request, run
child = '''
import os, signal, sys, time
def on(signum, frame):
    print("asked", flush=True)
    time.sleep(0.5)
    open("ended", "w").close()
    sys.exit()
signal.signal(signal.SIGINT, on)
print("child", os.getpid(), flush=True)
time.sleep(600)
'''
argv = (sys.executable, "-c", child)
request = Request(argv=argv, doing="x", cwd=Path(sys.argv[1]), timeout=300)
interrupts = Interrupts()
context = Context(os.environ, interrupts)
def told(stream, line):
    print(line, flush=True)
"""


@contextlib.contextmanager
def ourselves(cwd: Path, program: str) -> Iterator[tuple[subprocess.Popen[str], ProcessIdentity]]:
    """A process of ours that runs a child, and the child."""
    process = subprocess.Popen(
        [sys.executable, "-c", OURSELVES + textwrap.dedent(program), str(cwd)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    grandchild = None
    try:
        assert process.stdout is not None
        word, pid = process.stdout.readline().split()
        assert word == "child"
        grandchild = identity_of(int(pid))
        assert grandchild is not None
        yield process, grandchild
    finally:
        process.kill()
        process.communicate(timeout=30)
        if grandchild is not None and is_alive(grandchild):
            os.kill(grandchild.pid, signal.SIGKILL)


def test_ctrl_c_without_handlers_ends_the_child_in_order(tmp_path: Path) -> None:
    with ourselves(tmp_path, "run(request, context, told)") as (process, child):
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
        assert "KeyboardInterrupt" in complaint
        assert (tmp_path / "ended").exists()
        assert not is_alive(child)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_are_counted_and_forwarded_as_one_request(tmp_path: Path, signum: signal.Signals, code: int) -> None:
    program = """
        with interrupts.listening():
            outcome = run(request, context, told)
        try:
            interrupts.check("the test")
        except Exception as error:
            print(outcome.interrupted, outcome.returncode, error.exit_code, error, flush=True)
    """
    with ourselves(tmp_path, program) as (process, child):
        process.send_signal(signum)
        said, _ = process.communicate(timeout=30)
        assert said.splitlines() == ["asked", f"True 0 {code} interrupted by {signum.name} at the test"]
        assert not is_alive(child)


def test_nohup_is_respected(tmp_path: Path) -> None:
    program = """
        import signal
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with interrupts.listening():
            outcome = run(request, context, told)
        print(interrupts.count, interrupts.signum.name, flush=True)
    """
    with ourselves(tmp_path, program) as (process, child):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert is_alive(child)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
        assert said.splitlines() == ["asked", "1 SIGTERM"]


def test_a_killed_parent_leaves_a_child_that_comes_to_its_good_end(tmp_path: Path) -> None:
    """It is not killed by its next line, nor does it hang at it: what it must still write, it writes."""
    with ourselves(tmp_path, "run(request, context, told)") as (process, child):
        process.kill()
        process.wait(30)
        assert is_alive(child)
        os.kill(child.pid, signal.SIGINT)
        until((tmp_path / "ended").exists, 20)


# Time


def test_time_in_which_we_could_not_run_is_not_counted(tmp_path: Path) -> None:
    """A real SIGSTOP, as a suspended laptop or a Ctrl+Z gives."""
    program = """
import sys, time
from deployer.process import Deadline
deadline = Deadline(4.0, stride=0.5)
print("ready", flush=True)
while deadline.left > 0:
    time.sleep(0.02)
print(deadline.spent, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        time.sleep(3)
        process.send_signal(signal.SIGCONT)
        assert float(process.stdout.readline()) < 5
        assert time.monotonic() - started > 6
    finally:
        process.kill()
        process.communicate(timeout=30)


def test_a_limit_ends_without_anybody_running() -> None:
    deadline = Deadline(0.2)
    assert 0 < deadline.left <= 0.2
    time.sleep(0.25)
    assert deadline.left < 0


def test_a_wait_is_interrupted_at_once() -> None:
    interrupts = Interrupts()
    timer = threading.Timer(0.2, interrupts.request, [signal.SIGTERM])
    timer.start()
    started = time.monotonic()
    with pytest.raises(Interrupted, match="SIGTERM at waiting for SSH") as caught:
        interrupts.sleep(60, "waiting for SSH")
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 143
    timer.join()


def test_listening_puts_the_handlers_back() -> None:
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    interrupts = Interrupts()

    def interrupted() -> None:
        with interrupts.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            until(lambda: interrupts.count, 20)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
    assert interrupts.signum.name == "SIGTERM"


# Identity


def test_who_we_are() -> None:
    me = own_identity()
    assert me == identity_of(os.getpid())
    assert is_alive(me)
    assert not is_alive(ProcessIdentity(me.pid, me.started + "1"))
    assert not is_alive(ProcessIdentity(me.pid, ""))
    assert not is_alive(ProcessIdentity(2**30, me.started))


IGNORING = """
import signal, sys, time
from pathlib import Path
from deployer.errors import StepFailed
from deployer.process import Context, Request, run
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
else:
    def reap(*_):
        import os, contextlib
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]: pass
    signal.signal(signal.SIGCHLD, reap)
try:
    request = Request(argv=("/bin/sh", "-c", "sleep 0.2; exit 3"), doing="the work", cwd=Path("/"), timeout=60)
    print(run(request, Context({}), lambda *_: None).returncode)
except StepFailed as error:
    print(error)
"""


@pytest.mark.parametrize("how", ["ignored", "taken"])
def test_an_end_that_somebody_else_has_taken_is_not_a_good_one(how: str, checkout: Path) -> None:
    argv = [sys.executable, "-c", IGNORING, how]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("how the work ended is not known: "), done


def test_a_zombie_has_ended() -> None:
    process = subprocess.Popen(["true"])
    try:
        until(lambda: identity_of(process.pid) is None, 20)
    finally:
        process.wait()


def test_a_zombie_with_threads_at_work_has_not_ended() -> None:
    """A killed tool is one for a moment, and holds its files and locks in that moment."""
    script = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(600,)).start()"
    process = subprocess.Popen([sys.executable, "-c", f"{script}; ctypes.CDLL(None).pthread_exit(None)"])
    try:
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", 20)
        assert identity_of(process.pid) is not None
    finally:
        process.kill()
        process.wait()


def test_a_process_may_be_called_what_it_likes(tmp_path: Path) -> None:
    odd = tmp_path / ") Z 1 (x"
    odd.symlink_to(Path("/bin/sleep").resolve())
    process = subprocess.Popen([odd, "600"])
    try:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text().startswith(")"), 20)
        identity = identity_of(process.pid)
        assert identity is not None
        assert is_alive(identity)
    finally:
        process.kill()
        process.wait()
    assert not is_alive(identity)


def test_nobody_goes_on_because_what_he_waited_for_is_killed(tmp_path: Path) -> None:
    waiting = subprocess.Popen(["sh", "-c", "sleep 600 & echo $! > pid; mv pid ready; wait; : > went-on"], cwd=tmp_path)
    try:
        until((tmp_path / "ready").exists, 20)
        asleep = identity_of(int((tmp_path / "ready").read_text()))
        first = identity_of(waiting.pid)
        assert asleep is not None
        assert first is not None
        end_trees(asleep, first)
        assert waiting.wait(60) == -signal.SIGKILL
        until(lambda: not is_alive(asleep), 20)
    finally:
        waiting.kill()
        waiting.wait()
    assert not (tmp_path / "went-on").exists()
