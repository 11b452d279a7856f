"""Asked to stop: at every boundary, by a key on a real terminal, by signals, by closing the terminal; once, twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from deployer.environment import InProgress, Resources
from deployer.tofu.state import look
from tests.torture.arena import Arena, Attack, destroyed, nothing_forgotten, ok
from tests.torture.faults import Boundary, Fault
from tests.torture.kills import names_the_step
from tests.torture.terminal import Terminal
from tests.torture.world import Done, World, randomness
from tests.watching import until

SLOW = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Sleep
      raw: "echo > {place}; exec sleep 300"
"""
SIGNALS = (("int", 130), ("term", 143), ("hup", 129))


def stopped(world: World, done: Done, code: int) -> None:
    """What holds after an orderly stop."""
    assert done.code == code, done
    environment = world.saved()
    assert isinstance(environment, InProgress), done
    assert "was interrupted by" in done.err or "interrupted" in done.err, done
    assert "  now:" in done.err, done
    assert "  next:" in done.err, done
    nothing_forgotten(world, done)
    names_the_step(world, done)
    state = look(world.environment / "tofu")
    assert state.condition in ("absent", "whole"), (state, str(done))
    assert not state.interrupted, (state, str(done))
    assert "wo interrupts received" not in done.err, done
    assert not world.processes(), world.processes()


def _signal_at(where: Arena, command: str, number: int) -> tuple[Boundary, str, int]:
    """A boundary, a signal for it, and the exit code that it makes."""
    place, which = divmod(number, len(SIGNALS))
    return (where.boundary(randomness(1, command), command, place), *SIGNALS[which])


def boundary(where: Arena, chance: random.Random, number: int) -> None:
    """Each signal at each boundary of provision; then the same command again."""
    at, what, code = _signal_at(where, "provision", number)
    with where.world() as world:
        done = world.run("provision", "demo", fault=Fault(at, what))
        if done.code == 0:  # asked when all was done
            assert world.state() == "provisioned", done
        elif world.state() == "created":  # asked before anything began
            assert done.code == code, done
            assert not world.reality()
        else:
            stopped(world, done, code)
        ok(world.run("provision", "demo"))
        destroyed(world)


def configure(where: Arena, chance: random.Random, number: int) -> None:
    """The same for configure: Ansible and its children are gone, and the same command goes on to the end."""
    at, what, code = _signal_at(where, "configure", number)
    world = where.kept("interrupted", where.provisioned)
    done = world.run("configure", "demo", "--from-start", fault=Fault(at, what))
    if at not in done.trace:  # only the first run on an environment comes to that boundary
        where.drop("interrupted")
        world = where.kept("interrupted", where.provisioned)
        done = world.run("configure", "demo", "--from-start", fault=Fault(at, what))
        assert at in done.trace, done
    if world.state() == "provisioned":  # asked before anything began
        assert done.code == code, done
    elif world.state() == "configured":  # asked before anything began, or when all was done
        assert done.code in (0, code), done
    else:
        stopped(world, done, code)
    assert world.reality() == {"web1", "web1.began"}
    ok(world.run("configure", "demo"))
    assert world.state() == "configured"


def destroy(where: Arena, chance: random.Random, number: int) -> None:
    """The same for destroy: `destroyed` is said when it is true, and the same command goes on to the end."""
    at, what, code = _signal_at(where, "destroy", number)
    with where.standing(at) as world:
        before = world.state()
        done = world.run("destroy", "demo", "--yes", fault=Fault(at, what))
        if world.state() == before:  # asked before anything began
            assert done.code == code, done
            assert world.reality() == {"web1", "web1.began"}
        elif world.state() == "destroyed":  # asked when all was done
            assert done.code in (0, code), done
            assert not world.reality()
        else:
            stopped(world, done, code)
        destroyed(world)


def key(where: Arena, chance: random.Random, number: int) -> None:
    """Ctrl+C on a terminal during apply: it reaches the foreground process group, and OpenTofu exactly once."""
    with (
        where.world(options={"pause": "2", "script": "true"}) as world,
        Terminal(world, "provision", "demo") as terminal,
    ):
        began(world)
        terminal.type("\x03")
        terminal.expect("asked tofu apply to stop")
        assert terminal.wait() == 130, terminal.text
        interrupted_once(world)
        assert (world.state(), world.step()) == ("provisioning", "tofu_apply")
        assert "we wait for it to finish what is in flight" in terminal.text
        assert not look(world.environment / "tofu").interrupted
        until(lambda: not world.processes(), 20, "something outlives it")
        ok(world.run("provision", "demo"))
        destroyed(world)


def signals(where: Arena, chance: random.Random, number: int) -> None:
    """SIGTERM to the process alone, or SIGHUP by closing the terminal, during apply."""
    by_closing = number % 2 == 1
    with where.world(options={"pause": "2"}) as world, Terminal(world, "provision", "demo") as terminal:
        began(world)
        if by_closing:
            terminal.hang_up()
        else:
            os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == (129 if by_closing else 143), terminal.text
        until(lambda: not world.processes(), 20, "something outlives it")
        interrupted_once(world)
        assert (world.state(), world.step()) == ("provisioning", "tofu_apply")
        ok(world.run("provision", "demo"))
        destroyed(world)


STUBBORN = """\
#!{python}
# An OpenTofu that needs two requests to stop an apply, as one does whose provider is in the middle of a long call.
import os, signal, subprocess, sys
if sys.argv[1] != "apply":
    os.execv({engine!r}, ["tofu", *sys.argv[1:]])
asked = 0
def count(signum, frame):
    global asked
    asked += 1
    if asked == 2:
        child.send_signal(signal.SIGINT)
signal.signal(signal.SIGINT, count)
child = subprocess.Popen([{engine!r}, *sys.argv[1:]], start_new_session=True)
sys.exit(child.wait())
"""


def twice(where: Arena, chance: random.Random, number: int) -> None:
    """Two Ctrl+C during an apply that does not heed the first."""
    with where.world(options={"pause": "8"}) as world:
        engine = world.root / "bin" / "tofu-stubborn"
        engine.write_text(STUBBORN.format(python=sys.executable, engine=world.environ["DEPLOYER_TOFU"]))
        engine.chmod(0o700)
        with Terminal(world, "provision", "demo", DEPLOYER_TOFU=str(engine)) as terminal:
            began(world)
            terminal.type("\x03")
            terminal.expect("asked tofu apply to stop after ")
            time.sleep(chance.random())
            assert terminal.poll() is None
            typed = time.monotonic()
            terminal.type("\x03")
            assert terminal.wait(60) == 130, terminal.text
            assert time.monotonic() - typed < 15
        assert "may exist without anybody knowing it" in terminal.text
        environment = world.saved()
        assert isinstance(environment, InProgress)
        assert environment.resources is not Resources.NONE
        nothing_forgotten(world)
        until(lambda: not world.processes(), 30, "something outlives it")
        where.write(world)
        ok(world.run("provision", "-f", "demo.yml", "--from-start", "--yes"))
        destroyed(world)


def ansible(where: Arena, chance: random.Random, number: int) -> None:
    """Ctrl+C, SIGTERM or a closed terminal in the middle of a task: Ansible and all its children are gone."""
    how = ("key", "term", "close")[number % 3]
    world = where.kept("ansible", lambda: _slow(where))
    place = world.things / "asleep"
    place.unlink(missing_ok=True)
    with Terminal(world, "configure", "demo") as terminal:
        until(lambda: terminal.read() is None or place.exists(), 60, "the task does not begin")
        if how == "key":
            terminal.type("\x03")
        elif how == "term":
            os.kill(terminal.pid, signal.SIGTERM)
        else:
            terminal.hang_up()
        assert terminal.wait() == {"key": 130, "term": 143, "close": 129}[how], terminal.text
    assert (world.state(), world.step()) == ("configuring", "playbook:site")
    until(lambda: not world.processes(), 20, "something of Ansible's outlives it")


def _slow(where: Arena) -> World:
    world = where.new_world(created=False)
    where.write(world, playbook=SLOW.format(place=world.things / "asleep"))
    ok(world.run("create", "-f", "demo.yml"))
    ok(world.run("provision", "demo"))
    return world


def began(world: World) -> None:
    until(lambda: any(world.things.glob("*.began")), 60, "the machine is not begun")


def log(world: World) -> str:
    return max((world.environment / "logs").glob("*.log")).read_text()


def interrupted_once(world: World) -> None:
    """OpenTofu prints a sentence for the first signal, and another for a second."""
    text = log(world)
    assert text.count("nterrupt received") == 1, text
    assert "wo interrupts" not in text


ATTACKS = (
    Attack(
        "interrupts.boundary",
        3,
        "SIGINT, SIGTERM, SIGHUP anywhere in `provision`",
        "a signal to itself at an enumerated boundary",
        boundary,
        4,
        command="provision",
        each=len(SIGNALS),
    ),
    Attack(
        "interrupts.configure",
        3,
        "SIGINT, SIGTERM, SIGHUP anywhere in `configure`",
        "the same, with real Ansible on a real sshd",
        configure,
        2,
        command="configure",
        each=len(SIGNALS),
    ),
    Attack(
        "interrupts.destroy",
        3,
        "SIGINT, SIGTERM, SIGHUP anywhere in `destroy`",
        "the same",
        destroy,
        2,
        command="destroy",
        each=len(SIGNALS),
    ),
    Attack("interrupts.key", 3, "Ctrl+C during apply", "the key typed on a pseudo terminal", key, 1),
    Attack(
        "interrupts.signals",
        3,
        "SIGTERM, a closed terminal during apply",
        "kill; the terminal's end closed",
        signals,
        2,
    ),
    Attack(
        "interrupts.twice", 3, "Ctrl+C twice during an apply that does not heed it", "the key typed twice", twice, 1
    ),
    Attack(
        "interrupts.ansible",
        3,
        "Ctrl+C, SIGTERM, a closed terminal in a playbook",
        "the key, kill, the terminal's end closed",
        ansible,
        3,
    ),
)
