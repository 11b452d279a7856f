"""Many processes want one environment: never two holders, a torn read, a lost transition or a deadlock."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from deployer.environment import create
from deployer.errors import Locked
from deployer.events import utc_now
from deployer.process import Interrupts, identity_of, own_identity
from deployer.storage.lock import Child, own_record, write_record
from deployer.storage.repository import FileRepository
from tests.torture.arena import Arena, Attack, destroyed, ok, told
from tests.torture.faults import Boundary, Fault
from tests.torture.world import reap
from tests.watching import until


def crowd(where: Arena, chance: random.Random, number: int) -> None:
    """Workers that take the lock, count up by one in the state file and save; every now and then one is killed."""
    workers, rounds, kills = (50, 200, 100) if where.long else (10, 20, 10)
    folder = where.root / f"crowd{number}"
    repository = FileRepository(folder / "home")
    with repository.hold("demo", "create", timeout=5, interrupts=Interrupts(), new=True) as held:
        held.save(create("demo", {"n": 0}, "/", utc_now()))
    working = [_fork(folder, index, rounds, chance.random()) for index in range(workers)]
    killed, deadline = 0, time.monotonic() + (600 if where.long else 120)
    while working:
        assert time.monotonic() < deadline, "a deadlock"
        time.sleep(0.02)
        if killed < kills and chance.random() < 0.5:
            killed += 1
            os.kill(chance.choice(working), signal.SIGKILL)
        for pid in list(working):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                working.remove(pid)
                code = os.waitstatus_to_exitcode(status)
                assert code in (0, -9), (folder / "broken").read_text() if (folder / "broken").exists() else code
                if code == -9:
                    working.append(_fork(folder, workers + killed, rounds // 2, chance.random()))
    written = [int(line) for path in folder.glob("wins-*") for line in path.read_text().splitlines()]
    assert len(set(written)) == len(written), "two holders saved the same transition"
    final = repository.load("demo").spec["n"]
    assert len(written) <= final <= len(written) + killed, "a transition was lost"  # type: ignore[operator]
    assert repository.holder("demo") is None
    where.counts["contention.attempts"] += workers * rounds
    where.counts["contention.wins"] += len(written)
    where.counts["contention.kills"] += killed


def _fork(folder: Path, index: int, rounds: int, seed: float) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _work(folder, index, rounds, random.Random(seed))
            code = 0
        except BaseException as error:
            (folder / "broken").write_text(f"{type(error).__name__}: {error!r}")
        finally:
            os._exit(code)
    return pid


def _work(folder: Path, index: int, rounds: int, chance: random.Random) -> None:
    repository, inside = FileRepository(folder / "home"), folder / "inside"
    wins = os.open(folder / f"wins-{index}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen, slowest = 0, 0.0
    for _ in range(rounds):
        began = time.monotonic()
        now = int(repository.load("demo").spec["n"])  # type: ignore[arg-type]
        repository.holder("demo")
        slowest = max(slowest, time.monotonic() - began)
        assert now >= seen, f"read {now} after {seen}"
        seen = now
        try:
            with repository.hold("demo", "work", timeout=chance.choice((0, 0, 0.3)), interrupts=Interrupts()) as held:
                if inside.exists():
                    pid = int(inside.read_text() or 0)
                    assert pid == 0 or identity_of(pid) is None, f"two holders: {pid} and {os.getpid()}"
                inside.write_text(str(os.getpid()))
                held.at_step("counting")
                before = held.load()
                assert before is not None
                following = int(before.spec["n"]) + 1  # type: ignore[arg-type]
                held.save(create("demo", {"n": following}, "/", utc_now()))
                os.write(wins, f"{following}\n".encode())
                inside.unlink()
        except Locked as error:
            _names_the_holder(error)
    assert slowest < 10, f"a reader waited {slowest} s"


def _names_the_holder(error: Locked) -> None:
    assert error.exit_code == 4
    assert "process" in error.detail, error.detail
    assert not error.holder or {"pid", "command", "step", "since", "alive"} <= error.holder.keys()


def commands(where: Arena, chance: random.Random, number: int) -> None:
    """The program itself: one wins, the others are told who, one waits."""
    with where.world(options={"pause": "2"}) as world:
        racing = [world.start("provision", "demo", "--output", "json") for _ in range(6)]
        until(lambda: world.state() == "provisioning", 60)
        patient = world.start("provision", "demo", "--lock-timeout", "120")
        results = [running.wait() for running in racing]
        assert sorted(done.code for done in results) == [0, 4, 4, 4, 4, 4], "\n".join(map(str, results))
        (winner,) = (running.pid for running, done in zip(racing, results, strict=True) if done.code == 0)
        for done in results:
            if done.code == 4:
                told(done)
                assert done.error["holder"] == {} or done.error["holder"]["pid"] == winner, done
        ok(patient.wait())
        assert world.state() == "provisioned"
        destroyed(world)
    reap()


def strangers(where: Arena, chance: random.Random, number: int) -> None:
    """A record whose pids live, but are others' by now: nobody is fooled."""
    with where.world() as world:
        me = own_identity()
        record = replace(own_record("provision"), started="0:1", children=(Child(me.pid, "0:1", "tofu apply", "then"),))
        descriptor = os.open(world.environment / "environment.lock", os.O_RDWR)
        write_record(descriptor, record)
        os.close(descriptor)
        assert asdict(record)["children"], "the record is as a killed holder leaves it"
        assert "in use" not in ok(world.run("show", "demo")).out
        destroyed(world)


def no_flock(where: Arena, chance: random.Random, number: int) -> None:
    """A filesystem without flock is refused, clearly."""
    for name in ("ENOSYS", "ENOTSUP", "ENOLCK"):
        with where.world() as world:
            done = world.run("provision", "demo", fault=Fault(Boundary("flock", "environment.lock", 1), name))
            told(done, "does not support flock", "--home")
            assert done.code == 1
            assert world.state() == "created"
            with suppress(FileNotFoundError):
                assert not world.reality()


ATTACKS = (
    Attack(
        "contention.crowd",
        4,
        "many processes on one environment, some killed",
        "each takes the lock and counts up in the state file",
        crowd,
        1,
    ),
    Attack("contention.commands", 4, "seven commands at once", "the program, started seven times", commands, 1),
    Attack(
        "contention.strangers",
        4,
        "pids given out again",
        "a record with living pids and other start times",
        strangers,
        1,
    ),
    Attack("contention.no_flock", 4, "a filesystem without flock", "ENOSYS, ENOTSUP, ENOLCK from flock", no_flock, 1),
)
