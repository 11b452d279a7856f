"""Progress, drawn from made-up events with a clock of our own: for a pipe, for a terminal, as JSON."""

from __future__ import annotations

import errno
import io
import json
import re
import threading
from collections.abc import Callable, Sequence

import pytest

from deployer.cli.program import Options
from deployer.cli.progress import Lines, progress
from deployer.cli.text import clip, duration, table
from deployer.events import (
    Event,
    HostProgress,
    Notice,
    Output,
    ResourceProgress,
    RunFinished,
    RunStarted,
    StepFailedEvent,
    StepFinished,
    StepStarted,
    TaskProgress,
    Transition,
)

STORY: Sequence[Event] = (
    RunStarted(environment="demo", command="provision", pid=1, log="/x.log", steps=("tofu_apply", "wait_ssh")),
    Transition(environment="demo", from_state="created", to_state="provisioning", step="tofu_apply", pid=1),
    StepStarted(step="tofu_apply", number=1, total=2),
    ResourceProgress(address='terraform_data.machine["web"]', action="create", status="start"),
    ResourceProgress(address='terraform_data.machine["web"]', action="", status="says", message="building image"),
    ResourceProgress(address='terraform_data.machine["web"]', action="create", status="done", seconds=31.2),
    Output(source="tofu", line="a line of OpenTofu's"),
    StepFinished(step="tofu_apply", seconds=31.5, note="1 added"),
    StepStarted(step="wait_ssh", number=2, total=2),
    HostProgress(host="web", rung="connect", answer="Connection refused", seconds=1.0),
    HostProgress(host="web", rung="connect", answer="No route to host", seconds=2.0),
    HostProgress(host="web", rung="banner", seconds=3.0),
    Notice(message="slow: no\x1b[31m KVM", level="warning"),
    StepFailedEvent(step="wait_ssh", seconds=600.0, failure="unreachable", cause="no banner", log="/x.log"),
    RunFinished(command="provision", outcome="failed", state="provision_failed", seconds=632.0, environment="demo"),
)

PLAYBOOK: Sequence[Event] = (
    StepStarted(step="playbook:base", number=2, total=3),
    TaskProgress(playbook="base", task="Install tools", status="start"),
    TaskProgress(playbook="base", task="Install tools", status="ok", host="a"),
    TaskProgress(playbook="base", task="Install tools", status="changed", host="b"),
    TaskProgress(playbook="base", task="Install tools", status="failed", host="c", message="no space"),
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen(written: str) -> list[str]:
    """The lines a terminal shows at the end."""
    lines = [""]
    for part in re.findall(r"\x1b\[2K|\x1b\[[0-9]+m|\r|\n|[^\x1b\r\n]+", written):
        if part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\n":
            lines.append("")
        elif not part.startswith(("\x1b", "\r")):
            lines[-1] += part
    return lines


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)


def plain(events: Sequence[Event], *, verbose: bool = False) -> list[str]:
    stream = io.StringIO()
    renderer = Lines(stream, live=False, verbose=verbose, clock=Clock())
    for event in events:
        renderer(event)
    return stream.getvalue().splitlines()


def test_a_pipe_gets_lines_that_can_be_searched() -> None:
    assert plain(STORY) == [
        "demo: provision",
        "   [1/2] tofu_apply: started",
        '   terraform_data.machine["web"]: create',
        '   terraform_data.machine["web"]: building image',
        '   terraform_data.machine["web"]: create done, 31 s',
        "ok [1/2] tofu_apply                      32 s  1 added",
        "   [2/2] wait_ssh: started",
        "   web: waiting for the port (Connection refused)",
        "   web: waiting for the port (No route to host)",
        "   web: waiting for SSH",
        "   warning: slow: no[31m KVM",
        "!! [2/2] wait_ssh                 10 min 00 s  unreachable",
        "provision failed, 10 min 32 s",
    ]


def test_a_playbook_in_a_pipe() -> None:
    assert plain(PLAYBOOK) == [
        "   [2/3] playbook:base: started",
        "   task: Install tools",
        "   b: changed: Install tools",
        "   c: failed: Install tools: no space",
    ]


def test_verbose_adds_what_tools_say_and_what_was_saved() -> None:
    lines = plain([*STORY, *PLAYBOOK], verbose=True)
    assert any(line.endswith(" tofu | a line of OpenTofu's") for line in lines)
    assert any("from_state=created to_state=provisioning step=tofu_apply pid=1" in line for line in lines)
    assert "   a: ok: Install tools" in lines


def test_silence_is_broken_every_ten_seconds_and_no_sooner() -> None:
    stream, clock = io.StringIO(), Clock()
    renderer = Lines(stream, live=False, clock=clock)
    for event in STORY[:5]:
        renderer(event)
    before = len(stream.getvalue())
    for _ in range(25):
        clock.now += 1
        renderer.tick()
    assert stream.getvalue()[before:].splitlines() == [
        '   [1/2] tofu_apply 10 s  terraform_data.machine["web"]: building image',
        '   [1/2] tofu_apply 20 s  terraform_data.machine["web"]: building image',
    ]


def test_between_two_steps_there_is_no_beat() -> None:
    stream, clock = io.StringIO(), Clock()
    renderer = Lines(stream, live=False, clock=clock)
    clock.now += 100
    renderer.tick()
    assert stream.getvalue() == ""


def test_json_is_one_event_a_line() -> None:
    stream = io.StringIO()
    with progress(Options(progress="json"), stream) as renderer:
        for event in STORY:
            renderer(event)
    kinds = [json.loads(line)["kind"] for line in stream.getvalue().splitlines()]
    assert kinds == [event.kind for event in STORY if not isinstance(event, Output)]


def test_none_is_silent() -> None:
    stream = io.StringIO()
    with progress(Options(progress="none"), stream) as renderer:
        for event in STORY:
            renderer(event)
    assert stream.getvalue() == ""


def test_a_pipe_never_gets_escape_codes() -> None:
    stream = io.StringIO()
    with progress(Options(), stream) as renderer:
        for event in (*STORY, *PLAYBOOK):
            renderer(event)
    assert "\x1b" not in stream.getvalue()


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with progress(Options(), stream) as renderer:
        renderer(STORY[0])
    assert stream.getvalue() == "demo: provision\n"


def live(act: Callable[[Lines, Clock], None]) -> str:
    stream, clock = Terminal(), Clock()
    renderer = Lines(stream, live=True, clock=clock)
    act(renderer, clock)
    return stream.getvalue()


def test_a_terminal_shows_the_running_step_on_one_line() -> None:
    def act(renderer: Lines, clock: Clock) -> None:
        for event in STORY[:5]:
            renderer(event)
        for _ in range(3):
            clock.now += 4
            renderer.tick()

    lines = screen(live(act))
    assert lines[0] == "demo: provision"
    assert '[1/2] tofu_apply 12 s  terraform_data.machine["web"]: building' in lines[1]
    assert len(lines[1]) < 80
    assert len(lines) == 2


def test_a_terminal_keeps_finished_steps_and_ends_clean() -> None:
    def act(renderer: Lines, clock: Clock) -> None:
        for event in STORY:
            renderer(event)
            renderer.tick()

    lines = screen(live(act))
    assert lines == [
        "demo: provision",
        '   terraform_data.machine["web"]: create done, 31 s',
        "ok [1/2] tofu_apply                      32 s  1 added",
        "   warning: slow: no[31m KVM",
        "!! [2/2] wait_ssh                 10 min 00 s  unreachable",
        "provision failed, 10 min 32 s",
        "",
    ]


def test_between_two_steps_where_questions_are_asked_nothing_is_drawn() -> None:
    def act(renderer: Lines, clock: Clock) -> None:
        for event in STORY[:8]:
            renderer(event)
            renderer.tick()
        renderer(ResourceProgress(address="machine", action="create", status="start"))
        clock.now += 100
        renderer.tick()

    lines = screen(live(act))
    assert lines[-2].startswith("ok [1/2] tofu_apply")
    assert lines[-1] == ""


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    def act(renderer: Lines, clock: Clock) -> None:
        for event in STORY:
            renderer(event)

    assert not re.search(r"\x1b\[[0-9;]*m", live(act))


def test_events_from_many_threads_leave_whole_lines() -> None:
    stream = io.StringIO()
    renderer = Lines(stream, live=False)

    def talk(host: str) -> None:
        for i in range(100):
            renderer(Notice(message=f"{host} {i}"))

    threads = [threading.Thread(target=talk, args=(f"host{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 400
    assert all(re.fullmatch(r"   note: host\d \d+", line) for line in lines)


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_listener_that_fails_does_not_stop_the_run() -> None:
    for options in (Options(), Options(progress="json")):
        with progress(options, Full()) as renderer:
            for event in STORY:
                renderer(event)


def test_what_hosts_are_at_side_by_side() -> None:
    def act(renderer: Lines, clock: Clock) -> None:
        renderer(StepStarted(step="wait_ssh", number=7, total=8))
        renderer(HostProgress(host="a", rung="connect"))
        renderer(HostProgress(host="b", rung="cloud_init", answer="running"))
        renderer(HostProgress(host="a", rung="banner"))
        clock.now += 12
        renderer.tick()

    assert screen(live(act))[-1].endswith(" [7/8] wait_ssh 12 s  a: waiting for SSH; b: cloud-init (running)")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (1.24, "1.2 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (65, "1 min 05 s"), (3720, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_line_is_one_line_of_at_most_so_many_characters() -> None:
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdef", 4) == "abc~"
    assert clip("a\nb\tc\x1b[2J", 20) == "a b c[2J"
    assert [clip("日本", 4), clip("日本語のa", 6)] == ["日本", "日~"], "each takes two columns"
    assert table([("a", "bc"), ("bb", "c")]) == "a   bc\nbb  c"
