"""Folders, the audit trail, and what is told when a file refuses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployer import Deployer
from deployer.app.overview import overview
from deployer.config.model import Spec
from deployer.environment import ProvisionFailed, Provisioning
from deployer.errors import InvalidInput, StorageFailed, UnknownEnvironment, UnreadableState
from deployer.events import Event, Notice, Output, StepStarted
from deployer.storage import glance
from deployer.storage.folder import EnvironmentFolder, find_home, private_directory, storage_failed
from deployer.storage.journal import Journal, readable
from deployer.storage.lock import own_record, read_record, write_record
from deployer.storage.repository import FileRepository
from tests.steps import STATES
from tests.unit.test_environment_restore import every_state

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def test_home_is_found_as_git_finds_its_own(tmp_path: Path) -> None:
    deep = tmp_path / "project" / "a" / "b"
    deep.mkdir(parents=True)
    assert find_home(deep, {}) == deep / ".deployer"
    (tmp_path / "project" / ".deployer").mkdir()
    assert find_home(deep, {}) == tmp_path / "project" / ".deployer"
    (deep / ".deployer").write_text("a file is no home")
    assert find_home(deep, {}) == tmp_path / "project" / ".deployer"
    assert find_home(deep, {"DEPLOYER_HOME": ""}) == tmp_path / "project" / ".deployer"
    assert find_home(deep, {"DEPLOYER_HOME": "/elsewhere"}) == Path("/elsewhere")
    assert find_home(deep, {"DEPLOYER_HOME": "here"}) == deep / "here"
    assert find_home(deep, {"DEPLOYER_HOME": "~/here"}) == Path.home() / "here"
    assert find_home(deep, {"DEPLOYER_HOME": "/elsewhere"}, "../there") == deep.parent / "there"


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_home_whose_path_could_not_be_kept(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    for make in (lambda: find_home(folder, {}), lambda: find_home(tmp_path, {}, folder), Deployer(folder).list):
        with pytest.raises(InvalidInput) as caught:
            make()
        assert "has a control character, or one that is not UTF-8" in caught.value.detail
        assert caught.value.message.encode().isascii()
        assert "\n" not in caught.value.message
    (folder / ".deployer").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="cannot be a home"):
        find_home(folder, {})


def test_where_things_lie() -> None:
    folder = FileRepository(Path("/home/x/.deployer")).folder("demo")
    shown = {str(path.relative_to("/home/x/.deployer/environments/demo")) for path in (
        folder.state, folder.lock, folder.tofu, folder.ansible, folder.private_key,
        folder.known_hosts, folder.events, folder.logs, folder.recovery,
    )}  # fmt: skip
    assert shown == {
        "environment.json", "environment.lock", "tofu", "ansible", "ssh/id_ed25519",
        "ssh/known_hosts", "events.jsonl", "logs", "RECOVERY.md",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["..", "a/../b", "/etc", "x" * 300, "a\x00b", "-rf", "A", "$(id)", ""])
def test_a_name_never_leads_out_of_the_home(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        FileRepository(tmp_path).folder(name)
    assert len(caught.value.message) < 150
    assert list(tmp_path.iterdir()) == []


def test_names_are_folders_with_a_state(tmp_path: Path) -> None:
    environments = tmp_path / "environments"
    for name in ("b", "a", "no-state", "UPPER", ".hidden", "x y"):
        (environments / name).mkdir(parents=True)
        if name != "no-state":
            (environments / name / "environment.json").touch()
    (environments / "file").touch()
    assert FileRepository(tmp_path).names() == ("a", "b")
    with pytest.raises(UnknownEnvironment) as caught:
        FileRepository(tmp_path).load("no-state")
    assert "a, b" in caught.value.detail


def test_a_home_that_is_a_file_is_told(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("x")
    with pytest.raises(StorageFailed) as caught:
        FileRepository(home).names()
    assert caught.value.detail == "Not a directory"
    with pytest.raises(UnknownEnvironment):
        FileRepository(tmp_path).load("demo")
    for path in (home, home / "environments"):
        with pytest.raises(StorageFailed, match="cannot make") as caught:
            private_directory(path)
        assert caught.value.help.startswith("ls -ld")


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    made = private_directory(shared / "a" / "b")
    assert shared.stat().st_mode & 0o777 == 0o755
    assert (made.stat().st_mode & 0o777, made.parent.stat().st_mode & 0o777) == (0o700, 0o700)


def test_a_refusal_says_what_could_not_be_done_and_why() -> None:
    error = storage_failed("cannot save", Path("/h/x"), OSError(28, "whatever"))
    assert (error.message, error.detail) == ("cannot save /h/x", "No space left on device")
    assert storage_failed("cannot save", Path("/h/x"), OSError("no number")).detail == "no number"


class Listener(list[Event]):
    def __call__(self, event: Event) -> None:
        self.append(event)


@pytest.fixture
def folder(tmp_path: Path) -> EnvironmentFolder:
    return EnvironmentFolder(private_directory(tmp_path / "demo"))


def test_the_journal_keeps_every_event_and_passes_it_on(folder: EnvironmentFolder) -> None:
    heard = Listener()
    journal = Journal(folder, "r1", heard)
    step = StepStarted(environment="demo", run_id="r1", step="tofu_init", number=2, total=8, at=AT)
    output = Output(environment="demo", run_id="r1", source="tofu", line="\x1b[31mred", at=AT)
    journal(step)
    journal(output)
    assert heard == [step, output]
    assert [json.loads(line) for line in folder.events.read_text().splitlines()] == [step.as_dict()]
    stamp = "2026-01-02T03:04:05.678Z"
    assert journal.log.read_text().splitlines() == [
        f"{stamp} step_started environment=demo run_id=r1 step=tofu_init number=2 total=8",
        f"{stamp} tofu | [31mred",
    ]
    for path in (folder.events, journal.log):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_next_run_appends_events_and_has_a_log_of_its_own(folder: EnvironmentFolder) -> None:
    for run in ("r1", "r2"):
        Journal(folder, run, Listener())(Notice(message=run))
    assert len(folder.events.read_text().splitlines()) == 2
    assert sorted(p.name for p in folder.logs.iterdir()) == ["r1.log", "r2.log"]


def test_the_log_is_where_the_project_is_now(folder: EnvironmentFolder) -> None:
    (failed,) = (state for state in every_state() if isinstance(state, ProvisionFailed))
    spec = Spec.model_validate({"name": "demo", "hosts": {"web": {}}})
    folder.logs.mkdir()
    shown = [overview(failed, spec, folder, None, ()).log]
    for name in ("newer.log", "run.log"):  # the failure says /ö/run.log
        (folder.logs / name).touch()
        shown.append(overview(failed, spec, folder, None, ()).log)
    assert shown == ["", str(folder.logs / "newer.log"), str(folder.logs / "run.log")]


def test_the_log_of_an_interrupted_run_is_its_own(folder: EnvironmentFolder) -> None:
    """And not that of a plan which somebody asked for since."""
    interrupted = next(state for state in every_state() if isinstance(state, Provisioning))
    spec = Spec.model_validate({"name": "demo", "hosts": {"web": {}}})
    folder.logs.mkdir()
    own = folder.logs / f"{interrupted.progress.run_id}.log"
    for log in (own, folder.logs / "~newer-plan.log"):
        log.touch()
        assert overview(interrupted, spec, folder, None, ()).log == str(own)


def test_a_log_of_a_clock_that_was_ahead_is_not_the_newest_for_ever(folder: EnvironmentFolder) -> None:
    spec = Spec.model_validate({"name": "demo", "hosts": {"web": {}}})
    folder.logs.mkdir()
    shown: list[str] = []
    for name in ("29990101T000000.000000Z-up-beef.log", "20260101T000000.000000Z-up-beef.log", "20260102-up.log"):
        (folder.logs / name).touch()
        shown.append(Path(overview(every_state()[0], spec, folder, None, ()).log).name[:8])
    assert shown == ["29990101", "20260101", "20260102"]


def test_a_log_that_is_taken_away_is_made_anew(folder: EnvironmentFolder) -> None:
    journal = Journal(folder, "r1", Listener())
    journal(Notice(message="one"))
    journal.log.unlink()
    journal(Notice(message="two"))
    assert "two" in journal.log.read_text()


def test_a_journal_that_cannot_be_written_is_told_once_and_stops_nobody(folder: EnvironmentFolder) -> None:
    heard = Listener()
    journal = Journal(folder, "r1", heard)
    journal.log.mkdir()
    events = [Notice(environment="demo", run_id="r1", message=str(number)) for number in range(3)]
    for event in events:
        journal(event)
    warnings = [event for event in heard if event not in events]
    assert [event for event in heard if event in events] == events
    assert len(warnings) == 1
    assert isinstance(warnings[0], Notice)
    assert (warnings[0].level, "Is a directory" in warnings[0].message) == ("warning", True)
    assert len(folder.events.read_text().splitlines()) == 3


def test_no_line_is_written_in_part(folder: EnvironmentFolder) -> None:
    """On a disk that is almost full the next event was glued to half a line."""
    writing = """
import resource, sys
from pathlib import Path
from deployer.events import Notice
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.journal import Journal

journal = Journal(EnvironmentFolder(Path(sys.argv[1])), "r1", lambda event: print(event.message))
journal(Notice(message="before"))
room = journal.log.stat().st_size + 100
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))  # what a full disk does, for one process
journal(Notice(message="x" * 200))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal(Notice(message="after"))
"""
    told = subprocess.check_output([sys.executable, "-c", writing, str(folder.root)], text=True).splitlines()
    assert told[0] == "before"
    assert "the run goes on without it" in told[1]
    assert told[2:] == ["x" * 200, "after"]
    assert [json.loads(line)["message"] for line in folder.events.read_text().splitlines()] == ["before", "after"]
    assert len((folder.logs / "r1.log").read_text().splitlines()) == 2


def test_threads_do_not_mix_their_lines(folder: EnvironmentFolder) -> None:
    journal = Journal(folder, "r1", Listener())

    def report(letter: str) -> None:
        for _ in range(100):
            journal(Notice(message=letter * 3000))

    threads = [threading.Thread(target=report, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line)["message"] for line in folder.events.read_text().splitlines()]
    assert sorted(lines) == sorted(letter * 3000 for letter in "abcd" for _ in range(100))


def test_words_of_a_child_stay_on_their_line() -> None:
    line = readable(Notice(message="two\nlines and \x1b]0;a title\x07", at=AT))
    assert line == '2026-01-02T03:04:05.678Z notice message="two lines and ]0;a title" level=info'
    assert "\n" not in readable(Output(source="x", line="a\rb", at=AT))


def test_a_lone_surrogate_is_written_somehow(folder: EnvironmentFolder) -> None:
    Journal(folder, "r1", Listener())(Notice(message="\ud800"))
    assert json.loads(folder.events.read_text())["message"] == "\ud800"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    record = replace(own_record("provision demo"), step="tofu_apply")
    assert read_record(path) is None
    assert read_record(tmp_path / "missing") is None
    with path.open("r+b") as file:
        write_record(file.fileno(), record)
        assert read_record(path) == record
        size = path.stat().st_size
        write_record(file.fileno(), None)
        assert path.stat().st_size == size, "the room it takes is kept: the next record needs none on a full disk"
    assert read_record(path) is None
    assert (record.pid, record.alive) == (os.getpid(), True)
    assert record.as_dict()["alive"] is True


def test_a_record_that_is_written_in_part_is_refused(tmp_path: Path) -> None:
    """A child must not begin on the strength of a record that nobody can read."""
    path = tmp_path / "lock"
    code = f"""
import resource
from deployer.storage.lock import own_record, write_record
with open({str(path)!r}, "w+b") as file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
    try:
        write_record(file.fileno(), own_record("up"))
    except OSError as error:
        print("refused", error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"refused {errno.ENOSPC}\n", done.stderr


def test_a_record_is_read_whatever_its_user_is_called(tmp_path: Path) -> None:
    """An undecodable byte of the environment must not hide the children that the record names."""
    path = tmp_path / "lock"
    record = replace(own_record("provision demo"), user="j\udcffrg ä\n", host="ü" * 3000)
    with path.open("w+b") as file:
        write_record(file.fileno(), record)
        assert read_record(path) == replace(record, user="j?rg ä\n")


def test_the_quick_look_knows_the_models_fields() -> None:
    for environment in every_state():
        assert set(glance.FACTS | glance.FURTHER[environment.state]) == set(type(environment).model_fields)
    assert set(glance.FURTHER) == {environment.state for environment in every_state()} == set(STATES)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"state": "created"}', '{"state": ["created"]}', "[" * 100_000, "null"]
)
def test_the_quick_look_leaves_what_it_does_not_know_to_the_full_reading(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "environments" / "demo"
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text(text)
    assert glance.glance(tmp_path, "demo") == ""
    with pytest.raises(UnreadableState):
        Deployer(tmp_path).status("demo")
