"""Time: stopped processes, hung children, silent machines, clocks that go back. Every wait ends, and says its name."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from deployer.environment import create, encode, restore
from deployer.events import utc_now
from tests.torture.arena import Arena, Attack, destroyed, nothing_forgotten, ok, told
from tests.torture.faults import Boundary, Fault
from tests.torture.interrupts import SLOW, began
from tests.torture.world import World, randomness
from tests.watching import until


def suspended(where: Arena, chance: random.Random, number: int) -> None:
    """SIGSTOP for longer than the time limit, then SIGCONT: the limit is on time that could be used."""
    stop = 60.0 if where.long else 28.0
    with where.world(options={"pause": "3"}, timeouts={"apply": 25}) as world:
        running = world.start("provision", "demo")
        began(world)
        running.send(signal.SIGSTOP)
        time.sleep(stop)
        ok(world.run("show", "demo"))
        assert world.run("destroy", "demo", "--yes").code == 4, "a stopped process holds its lock"
        running.send(signal.SIGCONT)
        ok(running.wait())
        destroyed(world)


def limits(where: Arena, chance: random.Random, number: int) -> None:
    """A hung tool, for each of OpenTofu's commands; it heeds the request to stop, or nothing."""
    verb = ("init", "validate", "plan", "apply", "output", "destroy")[number % 6]
    step = {"output": "read_outputs"}.get(verb, f"tofu_{verb}")
    limit = {"validate": "plan", "output": "plan"}.get(verb, verb)
    with where.world(timeouts={limit: 4}) as world:
        if verb == "destroy":
            ok(world.run("provision", "demo"))
        engine = world.root / "bin" / "tofu-hung"
        engine.write_text(
            f'#!/bin/sh\n[ "$1" = {verb} ] && {{ echo $$ > {world.things}/../hung; exec sleep 600; }}\n'
            f'exec {world.environ["DEPLOYER_TOFU"]} "$@"\n'
        )
        engine.chmod(0o700)
        argv = ("destroy", "demo", "--yes") if verb == "destroy" else ("provision", "demo")
        done = told(world.run(*argv, DEPLOYER_TOFU=str(engine)), "took longer than 4 s", step)
        assert (done.code, done.seconds < 60) == (1, True), done
        assert not world.processes()
        nothing_forgotten(world, done)
        where.write(world)
        if verb != "destroy":
            ok(world.run("provision", "-f", "demo.yml", "--yes", "--from-start"))
        destroyed(world)


def silent(where: Arena, chance: random.Random, number: int) -> None:
    """A machine that takes connections and says nothing; a playbook that does not end."""
    if number % 2:
        with where.world(created=False, timeouts={"playbook": 3}) as world:
            (world.project / "site.yml").write_text(SLOW.format(place=world.root / "asleep"))
            where.write(world, configure={"playbooks": ["./site.yml"]}, timeouts={"playbook": 3})
            done = told(world.run("up", "demo.yml"), "did not finish within 3 s")
            assert (done.code, world.state()) == (1, "configure_failed"), done
            until(lambda: not world.processes(), 20, "Ansible outlives its limit")
            destroyed(world)
        return
    assert where.host.pid is not None
    os.kill(where.host.pid, signal.SIGSTOP)
    try:
        with where.world(timeouts={"ssh": 3}) as world:
            done = told(world.run("provision", "demo"), "web1", "limit 3 s")
            assert (done.code, world.state(), done.seconds < 40) == (1, "provision_failed", True), done
            destroyed(world)
    finally:
        os.kill(where.host.pid, signal.SIGCONT)


def clocks(where: Arena, chance: random.Random, number: int) -> None:
    """A clock set back: waits are on a clock that cannot be; times that run backwards in a file are still a file."""
    for path in sorted((Path(__file__).parents[2] / "deployer").rglob("*.py")):
        text = path.read_text()
        assert "time.time(" not in text, path
    at = utc_now()
    past = at - timedelta(days=chance.randint(1, 400))
    making = create("demo", {}, "/", at).start_provision("run", at, spec={}, file="/")
    making = making.begin("tofu_init", at).end(past)
    assert restore(encode(making)) == making
    with where.world() as world:
        ok(world.run("provision", "demo"))
        path = world.environment / "environment.json"
        year = str(at.year)
        path.write_text(path.read_text().replace(f'"{year}-', '"2099-'))  # written when the clock was wrong
        ok(world.run("show", "demo"))
        ok(world.run("list"))
        destroyed(world)


def set_back(where: Arena, chance: random.Random, number: int) -> None:
    """The clock is set in the middle of a run, an hour back or more, or ahead: the run ends well, and waits (for a
    lock, for a hung tool, for a silent machine) end when they should."""
    jump = (-3600.0, -400 * 86400.0, 3600.0)[number // len(_WAITS) % 3]
    wait = _WAITS[number % len(_WAITS)]
    with where.world(timeouts=_LIMITS) as world:
        wait(where, world, chance, jump)
        where.write(world)
        ok(world.run("list"))
        assert ok(world.run("show", "demo")).out
        ok(world.run("provision", "-f", "demo.yml", "--yes", "--from-start"))
        destroyed(world)


_LIMITS = {"apply": 30, "ssh": 30}


def _ends_well(where: Arena, world: World, chance: random.Random, jump: float) -> None:
    # Before a child: after it there is something with a time to write.
    at = where.boundary(chance, "provision", 0, kinds=("spawn",))
    done = ok(world.run("provision", "demo", fault=Fault(at, "clock", jump=jump)))
    assert (world.state(), world.reality()) == ("provisioned", {"web1", "web1.began"}), done
    assert done.seconds < 30, done
    _jumped(world, jump)


def _lock_in_time(where: Arena, world: World, chance: random.Random, jump: float) -> None:
    """Who waits for a lock loses when its time is up, and not before; or gets it."""
    held = world.start("provision", "demo", fault=Fault(Boundary("spawn", "tofu-plan", 1), "stop"))
    until(lambda: _is_stopped(held.pid))
    at = Boundary("flock", "environment.lock", chance.randint(2, 9))
    refused = told(world.run("destroy", "demo", "--yes", "--lock-timeout", "1", fault=Fault(at, "clock", jump=jump)))
    assert (refused.code, at in refused.trace) == (4, True), refused
    assert 1 <= refused.seconds < 15, refused
    waits = world.start("provision", "demo", "--lock-timeout", "60", fault=Fault(at, "clock", jump=jump))
    until(lambda: str(at) in waits.said("trace"), 30)
    held.send(signal.SIGCONT)
    ok(held.wait())
    assert ok(waits.wait()).seconds < 60


def _hung_in_time(where: Arena, world: World, chance: random.Random, jump: float) -> None:
    where.write(world, options={"pause": "600"}, timeouts={"apply": 2})
    at = Boundary("spawn", "tofu-apply", 1)
    done = world.run("provision", "-f", "demo.yml", "--yes", fault=Fault(at, "clock", jump=jump))
    assert (told(done, "took longer than 2 s").code, 2 <= done.seconds < 60) == (1, True), done
    _jumped(world, jump)
    nothing_forgotten(world, done)


def _silent_in_time(where: Arena, world: World, chance: random.Random, jump: float) -> None:
    assert where.host.pid is not None
    os.kill(where.host.pid, signal.SIGSTOP)
    try:
        where.write(world, timeouts={"ssh": 2})
        at = Boundary("spawn", "tofu-output", 1)
        done = world.run("provision", "-f", "demo.yml", "--yes", fault=Fault(at, "clock", jump=jump))
        assert (told(done, "web1", "limit 2 s").code, 2 <= done.seconds < 40) == (1, True), done
        _jumped(world, jump)
    finally:
        os.kill(where.host.pid, signal.SIGCONT)


def _jumped(world: World, jump: float) -> None:
    """The journal's times leap, which shows that the clock was set for whoever writes them."""
    lines = (world.environment / "events.jsonl").read_text().splitlines()
    times = [datetime.fromisoformat(json.loads(line)["at"]) for line in lines]
    leaps = [(after - before).total_seconds() for before, after in pairwise(times)]
    assert any(abs(leap - jump) < 60 for leap in leaps), leaps


_WAITS = (_ends_well, _lock_in_time, _hung_in_time, _silent_in_time)


def stopped(where: Arena, chance: random.Random, number: int) -> None:
    """SIGSTOP at a boundary, as long as others try their luck; SIGCONT, and all goes on."""
    at = where.boundary(randomness(3, "provision"), "provision", number, kinds=("fsync", "replace", "pwrite"))
    with where.world() as world:
        running = world.start("provision", "demo", fault=Fault(at, "stop"))
        until(lambda: _is_stopped(running.pid) or running.poll() is not None, 60)
        if running.poll() is None:
            nothing_forgotten(world)
            refused = world.run("provision", "demo")
            assert refused.code == 4, refused
            running.send(signal.SIGCONT)
        ok(running.wait())
        destroyed(world)


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


ATTACKS = (
    Attack(
        "timing.suspended",
        11,
        "a suspended computer",
        "SIGSTOP during apply for longer than its limit, then SIGCONT",
        suspended,
        1,
    ),
    Attack(
        "timing.stopped",
        11,
        "a stopped process holds the lock",
        "SIGSTOP at an enumerated boundary, then SIGCONT",
        stopped,
        2,
    ),
    Attack("timing.limits", 11, "a hung OpenTofu", "an engine that sleeps in one of its commands", limits, 6),
    Attack(
        "timing.silent", 11, "a silent machine, an endless playbook", "SIGSTOP of sshd; a task that sleeps", silent, 2
    ),
    Attack(
        "timing.set_back",
        11,
        "a clock set back or ahead during a run",
        "the process's clocks replaced at an enumerated boundary; runs, and waits for a lock, a tool, a machine",
        set_back,
        4,
    ),
    Attack(
        "timing.clocks", 11, "a clock set back or far ahead", "times in the file; no wait looks at the clock", clocks, 1
    ),
)
