"""The program is killed, its child is not: the environment stays locked by the child, and is free when that ends."""

from __future__ import annotations

import os
import random
import signal

from deployer.process import identity_of
from tests.torture.arena import Arena, Attack, destroyed, nothing_forgotten, ok, told
from tests.torture.interrupts import began
from tests.torture.world import World
from tests.watching import until

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Sleep
      raw: "echo > {place}; sleep 6"
    - name: The end
      raw: "echo > {place}-end"
"""


def tofu(where: Arena, chance: random.Random, number: int) -> None:
    with where.world(options={"pause": "6"}) as world:
        running = world.start("provision", "demo")
        began(world)
        running.send(signal.SIGKILL)
        assert running.wait().code == -9
        _locked(world, "tofu apply", "provision")
        if chance.random() < 0.5:
            until(lambda: not world.processes(), 30, "the orphan does not end")
            assert world.reality() == {"web1", "web1.began"}, "an orphan finishes what it began"
        ok(world.run("provision", "demo", "--lock-timeout", "60"))
        destroyed(world)


def ended(where: Arena, chance: random.Random, number: int) -> None:
    """As the message says: kill -INT ends the orphan in good order."""
    with where.world(options={"pause": "8"}) as world:
        running = world.start("provision", "demo")
        began(world)
        running.send(signal.SIGKILL)
        running.wait()
        refused = told(world.run("provision", "demo"))
        command = refused.err.rpartition("good order: ")[2].partition(";")[0]
        assert command.startswith("kill -INT "), refused
        assert world.shell(command).returncode == 0
        until(lambda: not world.processes(), 20, "the orphan does not end")
        where.write(world)
        ok(world.run("provision", "-f", "demo.yml", "--yes", "--lock-timeout", "10"))
        destroyed(world)


def ansible(where: Arena, chance: random.Random, number: int) -> None:
    world = where.kept("orphans", lambda: _sleepy(where))
    place = world.things / "asleep"
    for path in world.things.glob("asleep*"):
        path.unlink()
    running = world.start("configure", "demo", "--from-start")
    until(place.exists, 60, "the task does not begin")
    running.send(signal.SIGKILL)
    running.wait()
    _locked(world, "playbook:site", "configure")
    ok(world.run("configure", "demo", "--lock-timeout", "60"))
    assert world.state() == "configured"
    until(lambda: not world.processes(), 20, "something of Ansible's outlives it")


def _sleepy(where: Arena) -> World:
    world = where.new_world(created=False)
    where.write(world, playbook=PLAYBOOK.format(place=world.things / "asleep"))
    ok(world.run("create", "-f", "demo.yml"))
    ok(world.run("provision", "demo"))
    return world


def _locked(world: World, doing: str, command: str) -> None:
    """The next command is refused with all that is known; those that read are not."""
    nothing_forgotten(world)
    refused = told(world.run(command, "demo"), doing, "since ", "--lock-timeout", f"`deployer {command}`")
    assert refused.code == 4, refused
    error = world.run(command, "demo", "--output", "json").error
    orphan = error["holder"]["orphan"]
    assert error["exit_code"] == 4
    assert identity_of(orphan["pid"]) is not None
    assert str(orphan["pid"]) in refused.err
    environ = os.fsencode(f"TORTURE_WORLD={world.root}")
    with open(f"/proc/{orphan['pid']}/cmdline", "rb") as words, open(f"/proc/{orphan['pid']}/environ", "rb") as env:
        assert environ in env.read() or os.fsencode(str(world.root)) in words.read()
    for argv in (("status", "demo"), ("show", "demo"), ("list",), ("logs", "demo")):
        assert ok(world.run(*argv)).seconds < 5


ATTACKS = (
    Attack(
        "orphans.tofu",
        2,
        "OpenTofu outlives a killed `deployer`",
        "kill -9 during apply; then commands that want the lock",
        tofu,
        2,
    ),
    Attack(
        "orphans.ended", 2, "an orphan is ended as the message says", "the command of the message, pasted", ended, 1
    ),
    Attack("orphans.ansible", 2, "Ansible outlives a killed `deployer`", "kill -9 during a task", ansible, 1),
)
