"""What the state file tells without running OpenTofu, in every condition a crash or a user can leave it in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deployer.tofu.state import APPLYING, LocalState, locked_by, look

NOTE = ".terraform.tfstate.lock.info"
STATE = {
    "version": 4,
    "resources": [
        {"mode": "managed", "type": "terraform_data", "name": "one", "instances": [{"attributes": {"id": "1"}}]},
        {
            "mode": "managed",
            "type": "terraform_data",
            "name": "many",
            "instances": [{"index_key": "web"}, {"index_key": 0}],
        },
        {"mode": "data", "type": "external", "name": "asked", "instances": [{}]},
        {"mode": "managed", "type": "terraform_data", "name": "none", "instances": []},
        {"module": "module.net", "mode": "managed", "type": "terraform_data", "name": "in", "instances": [{}]},
    ],
}


def with_state(folder: Path, content: bytes | str) -> LocalState:
    (folder / "terraform.tfstate").write_bytes(content if isinstance(content, bytes) else content.encode())
    return look(folder)


def test_absent(tmp_path: Path) -> None:
    assert look(tmp_path) == LocalState("absent", interrupted=False, errored=None)
    assert look(tmp_path / "nowhere").condition == "absent"


def test_whole(tmp_path: Path) -> None:
    state = with_state(tmp_path, json.dumps(STATE))
    assert state.condition == "whole"
    assert state.resources == {
        "terraform_data.one": "1",
        'terraform_data.many["web"]': "unknown",
        "terraform_data.many[0]": "unknown",
        "module.net.terraform_data.in": "unknown",
    }
    assert with_state(tmp_path, '{"resources": []}') == LocalState("whole", interrupted=False, errored=None)


def test_addresses_and_ids_as_opentofu_names_them(tmp_path: Path) -> None:
    resource = {"module": "module.a", "mode": "managed", "type": "t", "name": "n"}
    given = [{"index_key": "web", "attributes": {"id": 7}}, {"index_key": "db", "attributes": None}, {}]
    state = with_state(tmp_path, json.dumps({"resources": [{**resource, "instances": given}]}))
    assert state.resources == {'module.a.t.n["web"]': "7", 'module.a.t.n["db"]': "unknown", "module.a.t.n": "unknown"}


@pytest.mark.parametrize("content", [b"", b"  \n"])
def test_empty(tmp_path: Path, content: bytes) -> None:
    assert with_state(tmp_path, content).condition == "empty"


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(STATE)[:-20],
        "[]",
        "null",
        "{}",
        '{"resources": null}',
        '{"resources": [1]}',
        '{"resources": [{"mode": "managed", "instances": [{}]}]}',
        '{"resources": [{"mode": "managed", "type": "t", "name": "n", "instances": [1]}]}',
        b"\x00\xff\xfe",
        "[" * 100_000,
    ],
    ids=lambda content: repr(content)[:20],
)
def test_damaged(tmp_path: Path, content: bytes | str) -> None:
    state = with_state(tmp_path, content)
    assert state.condition == "damaged"
    assert not state.resources


def test_remote(tmp_path: Path) -> None:
    (tmp_path / ".terraform").mkdir()
    assert look(tmp_path).condition == "absent"
    (tmp_path / ".terraform" / "terraform.tfstate").write_text('{"backend": {"type": "s3", "config": {}}}')
    assert look(tmp_path).condition == "remote"


def test_encrypted(tmp_path: Path) -> None:
    """As OpenTofu 1.7 and newer write it: what is in it is not ours to know, and it is whole."""
    state = with_state(
        tmp_path, json.dumps({"serial": 3, "meta": {}, "encrypted_data": "AAAA", "encryption_version": "v0"})
    )
    assert (state.condition, state.resources) == ("encrypted", {})


def test_a_note_that_a_killed_opentofu_left(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text("{}")
    assert look(tmp_path).interrupted
    assert with_state(tmp_path, json.dumps(STATE)).interrupted
    assert locked_by(tmp_path) == ""


def test_a_state_that_could_not_be_saved(tmp_path: Path) -> None:
    (tmp_path / "errored.tfstate").write_text("{}")
    assert look(tmp_path).errored == tmp_path / "errored.tfstate"
    assert not look(tmp_path).interrupted


def test_a_full_disk_left_nothing_to_push(tmp_path: Path) -> None:
    """`tofu state push` refuses the empty file; but what was made meanwhile may not be in the older state."""
    (tmp_path / "errored.tfstate").touch()
    assert look(tmp_path).errored is None
    assert with_state(tmp_path, json.dumps(STATE)).interrupted


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (
            '{"Who": "me@laptop\\u001b[2J", "Operation": "OperationTypeApply", "Created": "2026-01-02T03:04:05.678Z"}',
            "me@laptop[2J (OperationTypeApply, since 2026-01-02T03:04:05Z)",
        ),
        (None, "which left no readable note"),
        ("{", "which left no readable note"),
        ("[]", "which left no readable note"),
        ('{"Who": "me", "Operation": "x", "Created": 1}', "which left no readable note"),
    ],
)
def test_who_holds_the_lock_is_known_without_taking_it(tmp_path: Path, note: str | None, words: str) -> None:
    state = tmp_path / "terraform.tfstate"
    state.write_text(json.dumps(STATE))
    if note is not None:
        (tmp_path / NOTE).write_text(note)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert locked_by(tmp_path) == f"process {holder.pid}, {words}"
        assert not look(tmp_path).interrupted, "it is at work"
        assert holder.stdin is not None
        holder.stdin.close()
    assert locked_by(tmp_path) == ""


@pytest.mark.parametrize(
    ("noted", "condition"),
    [
        ('{"backend": {"type": "s3", "config": {}}}', "remote"),
        ('{"backend": {"type": "local", "config": {"path": "/elsewhere/x.tfstate"}}}', "remote"),
        ('{"backend": {"type": "local", "config": {"path": null}}}', "absent"),
        ('{"version": 3}', "absent"),  # what is left of a backend that was taken out again
    ],
)
def test_where_the_state_is(tmp_path: Path, noted: str, condition: str) -> None:
    (tmp_path / ".terraform").mkdir()
    (tmp_path / ".terraform" / "terraform.tfstate").write_text(noted)
    assert look(tmp_path).condition == condition


def test_an_apply_that_was_cut_short_where_the_state_is_elsewhere(tmp_path: Path) -> None:
    (tmp_path / ".terraform").mkdir()
    (tmp_path / ".terraform" / "terraform.tfstate").write_text('{"backend": {"type": "s3", "config": {}}}')
    assert not look(tmp_path).interrupted
    (tmp_path / APPLYING).touch()
    assert look(tmp_path).interrupted


def test_a_note_of_a_plan_is_no_doubt(tmp_path: Path) -> None:
    note = '{"Who": "me", "Operation": "OperationType%s", "Created": "2026-01-01T00:00:00Z"}'
    (tmp_path / NOTE).write_text(note % "Apply")
    assert look(tmp_path).interrupted
    (tmp_path / NOTE).write_text(note % "Plan")
    assert not look(tmp_path).interrupted
