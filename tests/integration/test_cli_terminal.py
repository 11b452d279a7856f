"""The program at a real terminal (a pty): the line that is drawn anew, questions, Ctrl+C."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from deployer.cli.main import main

# Made-up events, as a run tells them: fast enough for a test, slow enough for the line to be drawn.
_RUN = """
import sys, time
from deployer.cli.program import Options
from deployer.cli.progress import progress
from deployer.events import *

with progress(Options(), sys.stderr) as report:
    report(RunStarted(environment="demo", command="provision", pid=1, log="/l", steps=("tofu_apply",)))
    report(StepStarted(step="tofu_apply", number=5, total=8))
    report(ResourceProgress(address="terraform_data.machine", action="create", status="start"))
    sys.stdin.readline()
    report(StepFinished(step="tofu_apply", seconds=1.0, note="1 added"))
    report(RunFinished(environment="demo", command="provision", outcome="done", state="provisioned", seconds=2.0))
print("the result")
"""


_QUESTION = """
from deployer.cli.commands import ask
from deployer.errors import Interrupted
from deployer.process import Interrupts

with Interrupts().listening():
    try:
        ask("A change.", "Now?", again="deployer up demo")
    except Interrupted as error:
        print(error, error.exit_code)
"""

_CLOSED = """
import signal, sys
from pathlib import Path
from deployer.cli.commands import ask
from deployer.errors import Interrupted
from deployer.process import Interrupts

signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
with Interrupts().listening():
    try:
        ask("A change.", "Now?", again="deployer up demo")
    except Interrupted as error:
        Path(sys.argv[2]).write_text(str(error.exit_code))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEPLOYER_HOME", raising=False)
    assert main(["init"]) == 0
    assert main(["create", "-f", "demo.yml"]) == 0
    return tmp_path


Spawn = Callable[..., pexpect.spawn]


@pytest.fixture
def terminal(checkout: Path) -> Iterator[Spawn]:
    running: list[pexpect.spawn] = []

    def spawn(*arguments: str, columns: int = 80, cwd: Path | None = None, **more: str) -> pexpect.spawn:
        environ = {**os.environ, "PYTHONPATH": str(checkout), "TERM": "xterm", **more}
        environ.pop("NO_COLOR", None)
        environ |= more
        child = pexpect.spawn(
            sys.executable,
            list(arguments),
            cwd=cwd and str(cwd),
            env=environ,
            dimensions=(24, columns),
            encoding="utf-8",
            timeout=60,
            echo=False,
        )
        running.append(child)
        return child

    yield spawn
    for child in running:
        child.close(force=True)


@contextmanager
def deployer(terminal: Spawn, project: Path, *arguments: str) -> Iterator[pexpect.spawn]:
    yield terminal("-m", "deployer.cli.main", *arguments, cwd=project)


def ended(child: pexpect.spawn) -> int:
    child.expect(pexpect.EOF)
    child.wait()
    return int(child.exitstatus if child.exitstatus is not None else 128 + child.signalstatus)


def test_the_running_step_is_drawn_and_gone_at_the_end(terminal: Spawn) -> None:
    child = terminal("-c", _RUN)
    child.expect_exact("demo: provision")
    child.expect_exact("[5/8] tofu_apply")
    child.expect(r"(\d+\.\d) s  terraform_data\.machine: create")
    child.expect(rf"(?<![\d.])(?!{re.escape(child.match[1])})\d+\.\d s  terraform_data\.machine: create")
    child.sendline()
    assert ended(child) == 0
    rest = child.before.split("\x1b[2K")[-1]
    assert re.sub(r"\x1b\[\d+m", "", rest).splitlines() == [
        "ok [5/8] tofu_apply                     1.0 s  1 added",
        "provision done, 2.0 s",
        "the result",
    ]
    assert "\x1b[?" not in child.before, "the cursor and the screen are left alone"


@pytest.mark.parametrize("columns", [10, 30])
def test_a_narrow_terminal_never_wraps_the_line(terminal: Spawn, columns: int) -> None:
    child = terminal("-c", _RUN, columns=columns)
    for _ in range(5):
        child.expect(r"\r\x1b\[2K([^\r\n\x1b]+)")
        assert len(child.match[1]) < columns


def test_a_resize_is_noticed(terminal: Spawn) -> None:
    child = terminal("-c", _RUN, columns=100)
    child.expect_exact("terraform_data.machine: create")
    child.setwinsize(24, 20)
    child.expect(r"\r\x1b\[2K[^\r\n\x1b]{1,19}\r\x1b\[2K[^\r\n\x1b]{1,19}\r")


def test_no_color(terminal: Spawn) -> None:
    child = terminal("-c", _RUN, NO_COLOR="1")
    child.expect_exact("[5/8]")
    child.sendline()
    assert ended(child) == 0
    assert not re.search(r"\x1b\[\d*m", child.before)


def test_destroy_asks_and_takes_no_for_an_answer(terminal: Spawn, project: Path) -> None:
    for answer in ("n", "", "what?"):
        with deployer(terminal, project, "destroy", "demo") as child:
            child.expect_exact("demo is created. Nothing exists.")
            child.expect_exact("Destroy demo? [y/N] ")
            child.sendline(answer)
            child.expect_exact("Destroy demo? The answer was no")
            assert ended(child) == 2
    assert state(project) == "created"


def test_destroy_asks_and_takes_yes(terminal: Spawn, project: Path) -> None:
    with deployer(terminal, project, "destroy", "demo") as child:
        child.expect_exact("[y/N] ")
        child.sendline("y")
        child.expect_exact("demo: destroyed")
        assert ended(child) == 0
    assert state(project) == "destroyed"


def test_ctrl_c_at_a_question_is_an_interrupt(terminal: Spawn, project: Path) -> None:
    with deployer(terminal, project, "destroy", "demo") as child:
        child.expect_exact("[y/N] ")
        child.sendintr()
        child.expect_exact("interrupted by SIGINT")
        assert ended(child) == 130
    assert state(project) == "created"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_at_a_question_does_not_wait_for_the_answer(
    terminal: Spawn, signum: signal.Signals, code: int
) -> None:
    """While a run listens, signals are counted only, for the next step to see: there is none while it asks."""
    child = terminal("-c", _QUESTION)
    child.expect_exact("Now? [y/N] ")
    child.kill(signum)
    child.expect_exact(f"interrupted by {signum.name} at the question {code}")
    assert ended(child) == 0


@pytest.mark.parametrize("hangup", ["SIG_DFL", "SIG_IGN"])
def test_a_terminal_that_is_closed_at_a_question_is_an_interrupt(terminal: Spawn, tmp_path: Path, hangup: str) -> None:
    """The kernel tells the shell alone; what the shell started sees the end of its input first, or an error."""
    child = terminal("-c", _CLOSED, hangup, str(tmp_path / "code"))
    child.expect_exact("Now? [y/N] ")
    os.dup2(os.open(os.devnull, os.O_RDWR), child.child_fd)
    assert child.wait() == 0
    assert (tmp_path / "code").read_text() == "129"


def test_the_end_of_the_input_is_a_no(terminal: Spawn, project: Path) -> None:
    with deployer(terminal, project, "destroy", "demo") as child:
        child.expect_exact("[y/N] ")
        child.sendeof()
        child.expect_exact("The answer was no")
        assert ended(child) == 2


def test_ctrl_c_while_only_looking(terminal: Spawn, project: Path) -> None:
    (log,) = (project / ".deployer" / "environments" / "demo" / "logs").glob("*.log")
    log.unlink()
    os.mkfifo(log)  # a log that is never read to its end
    with deployer(terminal, project, "logs", "demo") as child:
        with log.open("w"):
            child.sendintr()
            child.expect_exact("interrupted by SIGINT")
        assert ended(child) == 130


def test_a_log_cannot_command_the_terminal(terminal: Spawn, project: Path) -> None:
    (log,) = (project / ".deployer" / "environments" / "demo" / "logs").glob("*.log")
    log.write_text("a line\x1b[2J\n")
    with deployer(terminal, project, "logs", "demo") as child:
        child.expect_exact("a line[2J")
        assert ended(child) == 0


def state(project: Path) -> str:
    path = project / ".deployer" / "environments" / "demo" / "environment.json"
    return str(json.loads(path.read_text())["state"])
