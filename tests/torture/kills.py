"""Killed at any instant, by kill -9 at each boundary of a clean run: before a write, in the middle of it, before the
fsync, before the replace, before the directory's fsync, before and after a child is started."""

from __future__ import annotations

import random

from deployer.environment import InProgress
from tests.torture.arena import Arena, Attack, destroyed, nothing_forgotten, ok, told
from tests.torture.faults import Fault
from tests.torture.world import Done, World, randomness

STEP_OF = {
    "tofu-init": "tofu_init",
    "tofu-validate": "tofu_validate",
    "tofu-plan": "tofu_plan",
    "tofu-apply": "tofu_apply",
    "tofu-output": "read_outputs",
    "tofu-destroy": "tofu_destroy",
    "ssh": "wait_ssh",
    "ansible": "playbook:site",
}


def truth_after_kill(world: World, done: Done) -> None:
    """What holds after a kill at any instant: readable, true, the step in flight named, nothing forgotten."""
    assert done.code == -9, done
    nothing_forgotten(world, done)
    environment = world.saved()
    names_the_step(world, done)
    if isinstance(environment, InProgress):
        entry = next(line for line in world.real("list").out.splitlines() if line.startswith("demo"))
        assert "interrupted" in entry or world.processes(), entry
    shown = ok(world.run("show", "demo"))
    assert environment is None or environment.state in shown.out


def names_the_step(world: World, done: Done) -> None:
    """The step of the child that was started last is in the state file, as in flight, as finished or as failed."""
    environment = world.saved()
    began = [STEP_OF[child] for child in done.spawned if child in STEP_OF]
    if done.argv[0] == "destroy":
        began = began and ["tofu_destroy"]
    if began and environment is not None:
        progress = getattr(environment, "progress", None)
        finished = [step.name for step in getattr(environment, "finished", ())]
        named = [progress.step, *(step.name for step in progress.finished)] if progress else finished
        if failure := getattr(environment, "failure", None):  # it doubted, and was killed when that was saved
            named = [*named, failure.step]
        assert began[-1] in named, (began, environment.state, named, str(done))


def provision(where: Arena, chance: random.Random, number: int) -> None:
    """Provision killed, then gone on with or destroyed; the destruction killed as well, then repeated."""
    at = where.boundary(randomness(0, "provision"), "provision", number)
    with where.world() as world:
        truth_after_kill(world, world.run("provision", "demo", fault=Fault(at, "kill")))
        if chance.random() < 0.75:
            ok(world.run("provision", "demo", "--lock-timeout", "120"))
            assert (world.state(), world.reality()) == ("provisioned", {"web1", "web1.began"})
        where.counts["provision and destroy killed"] += _destroy_killed(where, world, number)
        destroyed(world)


def destroy(where: Arena, chance: random.Random, number: int) -> None:
    """Destroy killed, the next one as well in half of the trials, at another boundary; then repeated."""
    with where.standing(where.boundary(randomness(0, "destroy"), "destroy", number)) as world:
        assert _destroy_killed(where, world, number)
        if chance.random() < 0.5:
            where.counts["destroy killed twice"] += _destroy_killed(where, world, chance.randrange(1000))
        destroyed(world)


def _destroy_killed(where: Arena, world: World, number: int) -> bool:
    at = where.boundary(randomness(0, "destroy"), "destroy", number)
    done = world.run("destroy", "demo", "--yes", "--lock-timeout", "120", fault=Fault(at, "kill"))
    if done.code == -9:
        truth_after_kill(world, done)
        return True
    if done.code != 1:  # it may doubt, and then `destroyed` follows its advice
        ok(done)
    return False  # a destroy of little has fewer boundaries


def configure(where: Arena, chance: random.Random, number: int) -> None:
    """Configure killed, Ansible and all; gone on with."""
    at = where.boundary(randomness(0, "configure"), "configure", number)
    world = where.kept("configure", where.provisioned)
    done = world.run("configure", "demo", "--from-start", fault=Fault(at, "kill"))
    if at not in done.trace:  # only the first run on an environment comes to that boundary
        where.drop("configure")
        world = where.kept("configure", where.provisioned)
        done = world.run("configure", "demo", "--from-start", fault=Fault(at, "kill"))
    truth_after_kill(world, done)
    ok(world.run("configure", "demo", "--lock-timeout", "120"))
    assert world.state() == "configured"
    if chance.random() < 0.1:
        destroyed(world)
        where.drop("configure")


def create(where: Arena, chance: random.Random, number: int) -> None:
    at = where.boundary(randomness(0, "create"), "create", number)
    with where.world(created=False) as world:
        done = world.run("create", "-f", "demo.yml", fault=Fault(at, "kill"))
        assert done.code == -9, done
        state = world.state()
        assert state in ("", "created")
        again = world.run("create", "-f", "demo.yml")
        if state:
            assert again.code == 3, again
            told(again)
        else:
            ok(again)
        destroyed(world)


ATTACKS = (
    Attack(
        "kills.provision",
        1,
        "kill -9 during `provision`",
        "SIGKILL to itself at an enumerated boundary; then the same command or `destroy`",
        provision,
        5,
        command="provision",
    ),
    Attack(
        "kills.destroy",
        1,
        "kill -9 during `destroy`",
        "the same; in half of the trials the next `destroy` is killed as well",
        destroy,
        3,
        command="destroy",
    ),
    Attack(
        "kills.configure",
        1,
        "kill -9 during `configure`",
        "the same, with real Ansible on a real sshd",
        configure,
        3,
        command="configure",
    ),
    Attack("kills.create", 1, "kill -9 during `create`", "the same", create, 3, command="create"),
)
