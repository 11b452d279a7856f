"""Destroy: from every state, twice, with the machine gone, with OpenTofu's lock taken, and only when meant."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from deployer.process import identity_of
from tests.steps import STATES
from tests.torture.arena import PLAYBOOK, Arena, Attack, nothing_forgotten, ok, told
from tests.torture.faults import Boundary, Fault
from tests.torture.terminal import Terminal
from tests.torture.world import World
from tests.watching import until

FAILING = PLAYBOOK.replace('"true"', '"false"')


def _killed(world: World, command: str, *argv: str) -> bool:
    at = Boundary("spawn", {"provision": "tofu-apply", "configure": "ansible", "destroy": "tofu-destroy"}[command], 1)
    return world.run(command, "demo", *argv, fault=Fault(at, "kill")).code == -9


def _fails(world: World, *argv: str) -> None:
    assert world.run(*argv).code == 1


def _provisioning(world: World) -> None:
    """Killed when apply was over and its end not saved."""
    at = Boundary("unlink", "deployer-applying.tfplan", 1)
    assert world.run("provision", "demo", fault=Fault(at, "kill")).code == -9


def _destroy_failed(world: World) -> None:
    ok(world.run("provision", "demo"))
    thing = world.things / "web1"
    thing.unlink()
    thing.mkdir()  # rm -f does not remove a folder
    _fails(world, "destroy", "demo", "--yes")
    thing.rmdir()


# How each state is reached: the options of the world, and what is done in it.
WAYS: dict[str, tuple[dict[str, Any], Callable[[World], object]]] = {
    "created": ({}, lambda world: None),
    "provisioning": ({}, _provisioning),
    "provision_failed": ({"options": {"script": "exit 3"}}, lambda world: _fails(world, "provision", "demo")),
    "provisioned": ({}, lambda world: ok(world.run("provision", "demo"))),
    "configuring": (
        {"playbook": PLAYBOOK},
        lambda world: ok(world.run("provision", "demo")) and _killed(world, "configure"),
    ),
    "configure_failed": ({"playbook": FAILING}, lambda world: _fails(world, "up", "demo")),
    "configured": ({"playbook": PLAYBOOK}, lambda world: ok(world.run("up", "demo"))),
    "destroying": ({}, lambda world: ok(world.run("provision", "demo")) and _killed(world, "destroy", "--yes")),
    "destroy_failed": ({}, _destroy_failed),
    "destroyed": ({}, lambda world: ok(world.run("destroy", "demo", "--yes"))),
}


def every_state(where: Arena, chance: random.Random, number: int) -> None:
    """From the number-th state, twice; where the machine exists, on some occasions it has gone by itself."""
    state = STATES[number % len(STATES)]
    options, reach = WAYS[state]
    with where.world(**options) as world:
        reach(world)
        assert world.state() == state
        nothing_forgotten(world)
        if chance.random() < 0.4:
            for thing in world.things.iterdir():
                thing.unlink()
        for _ in range(2):
            done = ok(world.run("destroy", "demo", "--yes", "--lock-timeout", "60"))
            assert (world.state(), world.reality()) == ("destroyed", set()), done
        ok(world.run("create", "-f", "demo.yml"))


def taken(where: Arena, chance: random.Random, number: int) -> None:
    """A hand-typed tofu waits for its user's yes, and holds OpenTofu's lock: we wait, and name it."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        by_hand = subprocess.Popen(
            ["tofu", "destroy", "-no-color"],
            cwd=world.environment / "tofu",
            env=world.environ,
            executable=str(world.root / "bin" / "tofu"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert by_hand.stdin is not None
        assert by_hand.stdout is not None
        shown = b""
        while b"Enter a value" not in shown:
            byte = by_hand.stdout.read(1)
            assert byte, shown
            shown += byte
        running = world.start("destroy", "demo", "--yes")
        until(lambda: "may be locked by" in running.said("err"), 30)
        assert f"process {by_hand.pid}" in running.said("err")
        assert identity_of(by_hand.pid) is not None
        assert world.state() == "destroying"
        assert world.reality() == {"web1", "web1.began"}
        by_hand.communicate(b"no\n", timeout=60)
        ok(running.wait())
        assert (world.state(), world.reality()) == ("destroyed", set())


def asked(where: Arena, chance: random.Random, number: int) -> None:
    """On a terminal it asks; elsewhere it needs --yes; no, and Ctrl+C, mean no."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        done = told(world.run("destroy", "demo"), "--yes")
        assert done.code == 2
        for answer, code in (("n\n", 2), ("\n", 2), ("\x04", 2), ("\x03", 130), ("yes\n", 0)):
            assert (world.state(), world.reality()) == ("provisioned", {"web1", "web1.began"})
            with Terminal(world, "destroy", "demo") as terminal:
                terminal.expect("Destroy demo?")
                terminal.type(answer)
                assert terminal.wait() == code, (answer, terminal.text)
        assert (world.state(), world.reality()) == ("destroyed", set())


def halves(where: Arena, chance: random.Random, number: int) -> None:
    """Three machines, one of which cannot be removed at first: `destroyed` is not said before the last has gone."""
    with where.world(count=3) as world:
        ok(world.run("provision", "demo"))
        stuck = world.things / "web2"
        stuck.unlink()
        stuck.mkdir()  # rm -f does not remove a folder
        done = told(world.run("destroy", "demo", "--yes"))
        assert (done.code, world.state()) == (1, "destroy_failed")
        assert "web2" in world.reality()
        nothing_forgotten(world)
        stuck.rmdir()
        ok(world.run("destroy", "demo", "--yes"))
        assert (world.state(), world.reality()) == ("destroyed", set())


def hurried(where: Arena, chance: random.Random, number: int) -> None:
    """OpenTofu itself is killed at its work: it may have lost track, and destroy says so rather than guess."""
    with where.world(options={"pause": "20"}) as world:
        running = world.start("provision", "demo")
        until(lambda: any(world.things.glob("*.began")), 60)
        record = world.record()
        assert record is not None
        for child in record.children:
            subprocess.run(["kill", "-KILL", str(child.pid)], check=True)
        done = told(running.wait())
        assert (done.code, world.state()) == (1, "provision_failed")
        nothing_forgotten(world)
        refused = told(world.run("destroy", "demo", "--yes"), "not called destroyed", "--from-start")
        assert refused.code == 1
        where.write(world)
        ok(world.run("provision", "-f", "demo.yml", "--from-start", "--yes"))
        for pid in world.processes():
            subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(pid)])
        ok(world.run("destroy", "demo", "--yes"))
        assert (world.state(), world.reality()) == ("destroyed", set())


def broken(where: Arena, chance: random.Random, number: int) -> None:
    """A change that OpenTofu cannot read has come as far as our copy; when it is mended, destroy works, with no other
    command between, even after it has failed."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        wrong = world.module / "wrong.tf"
        if number % 2:
            wrong.write_text("resource {")
            assert world.run("provision", "demo", "--yes").code == 1
        else:
            where.write(world, options={"pause": ["no", "string"]})
            assert world.run("provision", "-f", "demo.yml", "--yes").code == 1
        if chance.random() < 0.7:
            done = world.run("destroy", "demo", "--yes")
            nothing_forgotten(world, done)
            assert (done.code, world.state()) in ((0, "destroyed"), (1, "destroy_failed")), done
        wrong.unlink(missing_ok=True)
        ok(world.run("destroy", "demo", "--yes"))
        assert (world.state(), world.reality()) == ("destroyed", set())


ATTACKS = (
    Attack(
        "destroying.state",
        7,
        "destroy from every state, twice, machines gone by themselves",
        "each state is brought about by failures and kills",
        every_state,
        10,
    ),
    Attack(
        "destroying.taken",
        7,
        "a hand-typed tofu holds OpenTofu's lock",
        "tofu destroy, waiting for its answer",
        taken,
        1,
    ),
    Attack(
        "destroying.asked", 7, "destroy typed by mistake", "answers on a pseudo terminal, and none elsewhere", asked, 1
    ),
    Attack("destroying.halves", 7, "a machine that cannot be removed", "one of three", halves, 1),
    Attack("destroying.hurried", 7, "OpenTofu killed during apply", "kill -9 of tofu alone", hurried, 1),
    Attack("destroying.broken", 7, "a change that OpenTofu cannot read", "a broken module, wrong values", broken, 2),
)
