"""Files damaged in every way: the state file, the lock's record, the journal, OpenTofu's state."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from deployer import Deployer
from deployer.environment import Failure, Host, create, encode
from deployer.errors import FailureKind, UnreadableState
from deployer.events import utc_now
from tests.torture.arena import Arena, Attack, destroyed, ok, told
from tests.torture.world import World

Mutation = Callable[[random.Random, bytes], bytes]


def _flip(chance: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def _another_value(chance: random.Random, data: bytes) -> bytes:
    """One value, somewhere in the tree, becomes another; or its name does."""
    try:
        tree = json.loads(data)
    except ValueError:  # many lines, or none
        return _flip(chance, data)
    at: Any = tree
    place: list[tuple[Any, Any]] = []
    while isinstance(at, (dict, list)) and at:
        key = chance.choice(list(at)) if isinstance(at, dict) else chance.randrange(len(at))
        place.append((at, key))
        at = at[key]
        if chance.random() < 0.3:
            break
    owner, key = place[-1]
    kind = chance.randrange(3)
    if kind == 0 and isinstance(owner, dict):
        owner[key + chance.choice("sX ")] = owner.pop(key)
    elif kind == 1:
        del owner[key]
    else:
        owner[key] = chance.choice(_VALUES)
    return json.dumps(tree).encode()


_VALUES: tuple[object, ...] = (
    None, True, 0, -1, 10**30, 1.5, "", "x", "\x1b]0;x\x07", "x" * 100_000, [], {}, [[]], {"state": "created"}, "none",
    "destroyed", "2026-13-45", "9999-12-31T23:59:59Z", "../../etc", "\ud800",
)  # fmt: skip

MUTATIONS: tuple[Mutation, ...] = (
    lambda chance, data: b"",
    lambda chance, data: data[: chance.randrange(len(data))],
    lambda chance, data: data[chance.randrange(1, len(data)) :],
    _flip,
    _flip,
    _another_value,
    _another_value,
    _another_value,
    lambda chance, data: b"\0" * len(data),
    lambda chance, data: b" \n" * chance.randrange(1000),
    lambda chance, data: chance.randbytes(chance.randrange(1, 5000)),
    lambda chance, data: b"[" * 200_000,
    lambda chance, data: b'{"state":' * 50_000,
    lambda chance, data: data + data,
    lambda chance, data: data + b"\0" * 4096,
    lambda chance, data: data.decode().encode(chance.choice(("utf-16", "utf-32", "utf-8-sig", "cp037"))),
    lambda chance, data: chance.choice((b"null", b"[]", b"{}", b'"x"', b"0", b"NaN", b"<xml/>", b"name: demo\n")),
    lambda chance, data: data.replace(b'"name"', b'"name": "other", "name"', 1),
    lambda chance, data: data.replace(b": ", b": " + b" " * 1_000_000, 3),
)  # fmt: skip


def samples(world: World) -> tuple[bytes, ...]:
    """State files of every state."""
    at = utc_now()
    spec = json.loads((world.environment / "environment.json").read_bytes())["spec"]
    made = create("demo", spec, str(world.project), at)
    at += timedelta(seconds=1)
    failure = Failure(step="tofu_apply", kind=FailureKind.TOFU, cause="no", at=at, log="/log")
    begun = made.start_provision("run", at, spec=spec, file=made.file)
    making = begun.begin("tofu_apply", at).expect_resources(at)
    hosts = {"web1": Host(address="127.0.0.1", port=22, user="root", ports=(), id="1", console=None)}
    ready = making.end(at).found_hosts(hosts, at).succeed(at)
    working = ready.start_configure("run", at).begin("render_inventory", at)
    leaving = ready.start_destroy("run", at).begin("tofu_destroy", at)
    states = (made, making, making.fail(failure), ready, working, working.fail(failure), working.end(at).succeed(at),
              leaving, leaving.fail(failure), leaving.resources_gone(at).end(at).succeed(at))  # fmt: skip
    return tuple(encode(state).encode() for state in states)


def state_file(where: Arena, chance: random.Random, number: int) -> None:
    """Hundreds of mutants, thousands in the long campaign: whatever reads says that it cannot, naming the file, or
    reads a whole environment."""
    world = where.kept("damage", where.new_world)
    path, wholes = world.environment / "environment.json", samples(world)
    deployer = Deployer(world.home, environ=world.environ, cwd=world.project)
    for _ in range(2500 if where.long else 250):
        mutant = chance.choice(MUTATIONS)(chance, chance.choice(wholes))
        path.write_bytes(mutant)
        _read(deployer, path)
        where.counts["damage.mutants"] += 1
        assert path.read_bytes() == mutant, "reading changes nothing"
    # The last one that cannot be read, with the program itself: nothing goes on as if nothing were there.
    path.write_bytes(chance.choice((b"", wholes[3][:-20], b"[]", _flip(chance, wholes[3])[:-3])))
    for argv in (("status", "demo"), ("show", "demo"), ("provision", "demo"), ("destroy", "demo", "--yes"),
                 ("up", "demo.yml"), ("create", "-f", "demo.yml"), ("inventory", "demo", "--list")):  # fmt: skip
        done = told(world.run(*argv), str(path), "OpenTofu")
        assert done.code == 5, done
    assert "demo" in world.run("list").out
    path.write_bytes(wholes[0])


def _read(deployer: Deployer, path: Path) -> None:
    for look in (deployer.status, deployer.show, deployer.inventory):
        try:
            look("demo")
        except UnreadableState as error:
            _is_told(error, path)
    (entry,) = deployer.list()
    assert entry.name == "demo"
    assert bool(entry.state) != bool(entry.problem)


def _is_told(error: UnreadableState, path: Path) -> None:
    assert str(path) in error.message
    assert error.detail
    assert error.remains
    assert error.help


def record(where: Arena, chance: random.Random, number: int) -> None:
    """The lock's record: damaged it is none, and with a true checksum and false contents it fools and breaks nobody."""
    world = where.kept("damage", where.new_world)
    path = world.environment / "environment.lock"
    deployer = Deployer(world.home, environ=world.environ, cwd=world.project)
    held = {"pid": 1, "started": "x", "host": "h", "user": "u", "command": "up", "step": "s", "since": "now",
            "children": [{"pid": 1, "started": "x", "doing": "tofu", "since": "now"}]}  # fmt: skip
    for _ in range(200 if where.long else 50):
        text = chance.choice(MUTATIONS)(chance, json.dumps(held).encode())
        line = text if chance.random() < 0.2 else f"{zlib.crc32(text):08x} ".encode() + text + b"\n"
        path.write_bytes(line)
        deployer.show("demo")
        deployer.list()
        where.counts["damage.records"] += 1
    ok(world.run("show", "demo"))
    ok(world.run("show", "demo", "--output", "json"))
    ok(world.run("plan", "demo"))
    assert world.record() is None


def journal(where: Arena, chance: random.Random, number: int) -> None:
    """The audit trail and the logs: damaged, or not even files, they stop nobody."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        events = world.environment / "events.jsonl"
        events.write_bytes(chance.choice(MUTATIONS)(chance, events.read_bytes()))
        for path in (world.environment / "logs").glob("*.log"):
            path.write_bytes(chance.choice(MUTATIONS)(chance, path.read_bytes()))
        for argv in (("show", "demo"), ("logs", "demo"), ("list",)):
            ok(world.run(*argv))
        if number % 2:
            events.unlink()
            events.mkdir()
            assert "cannot write" in ok(world.run("provision", "demo", "--from-start")).err
        destroyed(world)


def tofu_state(where: Arena, chance: random.Random, number: int) -> None:
    """OpenTofu's state is gone, empty or damaged while a machine exists: `destroy` never says destroyed. With the state
    back in its place it does its work."""
    world = where.kept("tofu", lambda: _provisioned(where))
    path = world.environment / "tofu" / "terraform.tfstate"
    whole = path.read_bytes()
    kind, spoil = list(_SPOILS.items())[number % len(_SPOILS)]
    path.unlink()
    spoil(path, whole)
    shown = world.run("show", "demo", "--refresh")
    assert "differs" in ok(shown).out, (kind, str(shown))
    done = told(world.run("destroy", "demo", "--yes"))
    assert done.code == 1, (kind, str(done))
    assert (world.state(), world.reality()) == ("provisioned", {"web1", "web1.began"}), kind
    assert "terraform.tfstate" in done.err, (kind, str(done))
    with suppress(FileNotFoundError):
        os.rmdir(path) if path.is_dir() else path.unlink()
    path.write_bytes(whole)
    if chance.random() < 0.2:
        destroyed(world)
        where.drop("tofu")


_SPOILS: dict[str, Callable[[Path, bytes], object]] = {
    "missing": lambda path, whole: None,
    "zero bytes": lambda path, whole: path.write_bytes(b""),
    "half": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "zeros": lambda path, whole: path.write_bytes(b"\0" * len(whole)),
    "blank": lambda path, whole: path.write_bytes(b" \n" * 100),
    "null": lambda path, whole: path.write_bytes(b"null"),
    "list": lambda path, whole: path.write_bytes(b"[]"),
    "object": lambda path, whole: path.write_bytes(b"{}"),
    "resources null": lambda path, whole: path.write_bytes(b'{"version": 4, "resources": null}'),
    "deep": lambda path, whole: path.write_bytes(b"[" * 200_000),
    "utf-16": lambda path, whole: path.write_bytes(whole.decode().encode("utf-16")),
    "latin": lambda path, whole: path.write_bytes(whole.replace(b'"lineage"', b'"line\xe4ge"')),
    "huge": lambda path, whole: path.write_bytes(whole[:-10] + b" " * 10_000_000),
    "a folder": lambda path, whole: path.mkdir(),
    "a dead link": lambda path, whole: path.symlink_to("nowhere"),
}


def _provisioned(where: Arena) -> World:
    world = where.new_world()
    ok(world.run("provision", "demo"))
    return world


def errored(where: Arena, chance: random.Random, number: int) -> None:
    """OpenTofu left errored.tfstate: found, and its push explained; the explanation is pasted, and works."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        tofu = world.environment / "tofu"
        (tofu / "terraform.tfstate").rename(tofu / "errored.tfstate")
        if number % 2:
            (tofu / "terraform.tfstate").touch()
        assert "errored.tfstate" in ok(world.run("show", "demo", "--refresh")).out
        done = told(world.run("destroy", "demo", "--yes"), "state push")
        assert done.code == 1
        again = told(world.run("provision", "demo", "--from-start", "--yes"), "state push")
        assert (again.code, world.state()) == (1, "provisioned"), again
        command = done.err.rpartition("next:")[2].partition("#")[0].strip()
        pushed = world.shell(command)
        assert pushed.returncode == 0, pushed
        destroyed(world)


ATTACKS = (
    Attack(
        "damage.state",
        6,
        "a damaged environment.json, of every state",
        "truncated, flipped, other values, other "
        "encodings, deep, huge; read by status, show, list, logs, inventory and, last, refused by every command",
        state_file,
        4,
    ),
    Attack(
        "damage.record", 6, "a damaged record in the lock", "the same, with false and with true checksums", record, 2
    ),
    Attack("damage.journal", 6, "a damaged audit trail", "the same", journal, 2),
    Attack(
        "damage.tofu_state",
        6,
        "OpenTofu's state lost or damaged while a machine exists",
        "fifteen ways",
        tofu_state,
        15,
    ),
    Attack(
        "damage.errored", 6, "OpenTofu left errored.tfstate", "its state moved there; the advice pasted", errored, 2
    ),
)
