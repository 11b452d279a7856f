"""Disks that refuse, fill up, turn read-only or vanish."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.torture.arena import PLAYBOOK, Arena, Attack, destroyed, nothing_forgotten, ok, told
from tests.torture.faults import REMOVING, WRITING, Boundary, Fault
from tests.torture.interrupts import began
from tests.torture.world import Done, World, randomness
from tests.watching import until

COMMANDS = {
    "create": ("create", "-f", "demo.yml"),
    "provision": ("provision", "demo"),
    "configure": ("configure", "demo"),
    "destroy": ("destroy", "demo", "--yes"),
}
EACH = 2  # trials at a boundary
LASTING = (
    ("ENOSPC", WRITING),
    ("EDQUOT", WRITING),
    ("EIO", (*WRITING, *REMOVING)),
    ("EROFS", (*WRITING, *REMOVING)),
    ("EACCES", ("open", "mkdir", "replace", *REMOVING)),
)


def refusal(command: str, where: Arena, chance: random.Random, number: int) -> None:
    """At each boundary one call fails, then in another trial all from there on; afterwards the disk is well again."""
    place, lasting = divmod(number, EACH)
    fault = _fault(where.boundary(randomness(2, command), command, place), bool(lasting), chance)
    with where.world(created=command != "create", playbook=PLAYBOOK if command == "configure" else "") as world:
        if command in ("configure", "destroy"):
            ok(world.run("provision", "demo"))
        before = world.state()
        done = world.run(*COMMANDS[command], fault=fault)
        _survived(world, done, fault, before)
        # Where the last fsync of create failed it is told, and the new file stands; destroy is typed again below.
        if command not in ("create", "destroy") or (command == "create" and world.state() != "created"):
            ok(world.run(*COMMANDS[command]))
        destroyed(world)


def _fault(at: Boundary, lasting: bool, chance: random.Random) -> Fault:
    if at.kind == "spawn":
        return Fault(at, "EAGAIN", ("spawn",) if lasting else ())
    # Of a lock EACCES says that another process holds it (fcntl(2)); no disk says so.
    name, kinds = chance.choice([each for each in LASTING if (at.kind, each[0]) != ("flock", "EACCES")])
    return Fault(at, name, kinds if lasting else ())


def _survived(world: World, done: Done, fault: Fault, before: str) -> None:
    context = f"{fault}\n{done}"
    assert done.code in ((0, 1, 6) if fault.at.kind == "spawn" else (0, 1)), context  # 6: a tool that does not start
    nothing_forgotten(world, context)
    if done.code:
        told(done)
        assert world.state() in (before, *_INTERMEDIATE), context
    if done.code == 1 and "cannot save" in done.err and world.reality():
        assert "tofu destroy" in done.err, context  # what exists, and how to take it away by hand
        assert str(world.environment / "tofu") in done.err, context


_INTERMEDIATE = (
    "created", "provisioning", "provision_failed", "provisioned", "configuring", "configure_failed", "configured",
    "destroying", "destroy_failed", "destroyed",
)  # fmt: skip


@contextmanager
def small_disk(where: Arena, kilobytes: int) -> Iterator[Path]:
    """A real filesystem of that size (tmpfs)."""
    path = where.root / f"disk{kilobytes}"
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k,mode=700", "none", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def full(where: Arena, chance: random.Random, number: int) -> None:
    """The home on a disk that is full but for a few blocks, for us and for OpenTofu. Then there is room again."""
    left = chance.randrange(0, 22) * 4096
    with small_disk(where, 1024) as disk, where.world(home=disk / "home") as world:
        ballast = disk / "ballast"
        free = shutil.disk_usage(disk).free
        ballast.write_bytes(b"x" * max(0, free - left))
        done = world.run("provision", "demo")
        assert done.code in (0, 1), done
        if done.code:
            told(done)
        nothing_forgotten(world, done)
        assert ok(world.run("show", "demo")).out
        ballast.unlink()
        ok(world.run("provision", "demo", "--lock-timeout", "60"))
        destroyed(world)


def read_only(where: Arena, chance: random.Random, number: int) -> None:
    """The home's disk is mounted read-only: what reads works, what changes is told."""
    with small_disk(where, 2048) as disk, where.world(home=disk / "home") as world:
        ok(world.run("provision", "demo"))
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        for argv in (("status", "demo"), ("show", "demo"), ("list",), ("logs", "demo")):
            ok(world.run(*argv))
        for command in COMMANDS.values():
            done = world.run(*command)
            told(done, "ead-only file system")
            assert done.code == 1, done
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert world.state() == "provisioned"
        destroyed(world)


def vanishing(where: Arena, chance: random.Random, number: int) -> None:
    """The home is moved away during apply, and comes back."""
    with where.world(options={"pause": "2"}) as world:
        running = world.start("provision", "demo")
        began(world)
        away = world.root / "away"
        world.home.rename(away)
        done = running.wait()
        assert done.code == 1, done
        told(done)
        assert world.reality() == {"web1", "web1.began"}, "a running apply is brought to its end"
        assert not world.home.exists(), "nobody made another home in its place"
        away.rename(world.home)
        until(lambda: not world.processes(), 20)
        nothing_forgotten(world, done)
        ok(world.run("provision", "demo"))
        destroyed(world)


def unsaved(where: Arena, chance: random.Random, number: int) -> None:
    """The disk is full from the end of apply on: apply is brought to its end, and the message is all there is; so it
    must name what exists, and its command must take it away."""
    trace = where.clean("provision")
    applied = next(i for i, b in enumerate(trace) if b.kind == "spawn" and b.name == "tofu-apply")
    at = next(b for b in trace[applied:] if b.kind == "open" and b.name == ".environment.json.new")
    with where.world() as world:
        done = told(world.run("provision", "demo", fault=Fault(at, "ENOSPC", WRITING)))
        assert done.code == 1
        assert world.reality() == {"web1", "web1.began"}
        assert (world.state(), world.step()) == ("provisioning", "tofu_apply")
        nothing_forgotten(world, done)
        by_hand = done.err.rpartition("take everything away by hand: ")[2].strip()
        assert by_hand.endswith("tofu destroy"), done
        removed = world.shell(f"{by_hand} -auto-approve")
        assert removed.returncode == 0, removed
        assert not world.reality()
        destroyed(world)


ATTACKS = (
    *(
        Attack(
            f"disks.{command}",
            5,
            f"ENOSPC, EDQUOT, EIO, EROFS, EACCES anywhere in `{command}`; no process to be had",
            "the errno from an enumerated call, once and from there on",
            partial(refusal, command),
            count,
            command=command,
            each=EACH,
        )
        for command, count in (("provision", 5), ("destroy", 4), ("configure", 2), ("create", 2))
    ),
    Attack(
        "disks.full", 5, "a disk with only some blocks left", "a real tmpfs, filled up; OpenTofu suffers too", full, 3
    ),
    Attack("disks.read_only", 5, "a read-only home", "a real tmpfs, mounted again read-only", read_only, 1),
    Attack("disks.vanishing", 5, "the home disappears during apply", "moved away, and back", vanishing, 1),
    Attack(
        "disks.unsaved",
        5,
        "the state cannot be saved after apply",
        "ENOSPC from the first save after apply on",
        unsaved,
        1,
    ),
)
