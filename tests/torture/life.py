"""A machine that leads environments through any life: commands, kills, interrupts, a second process, disks that refuse.

After each event: at most one holder; the state file can be read; what exists is not forgotten.
"""

from __future__ import annotations

import random
import signal

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deployer.environment import Resources
from deployer.tofu.state import look
from tests.torture.arena import Arena, Attack, destroyed, nothing_forgotten
from tests.torture.disks import COMMANDS, LASTING
from tests.torture.faults import Fault
from tests.torture.world import Done, World, randomness
from tests.watching import until

RUNNING = ("provision", "destroy", "create")


def machine(where: Arena, chance: random.Random, number: int) -> None:
    """Some lives of some events each."""

    class Life(_Life):
        arena = where

    made = settings(
        max_examples=20 if where.long else 6,
        stateful_step_count=12 if where.long else 7,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        verbosity=Verbosity.quiet,
        suppress_health_check=tuple(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(seed(chance.getrandbits(32))(Life), settings=made)


class _Life(RuleBasedStateMachine):
    arena: Arena
    world: World

    @initialize()
    def begins(self) -> None:
        self.world = self.arena.new_world()

    @rule(command=st.sampled_from(RUNNING))
    def runs(self, command: str) -> None:
        """Undisturbed, a command succeeds or is refused for a reason it gives."""
        done = self._run(command)
        if done.code == 1:  # a doubt, with its way out
            assert "so this is not called destroyed" in done.err, done
        else:
            assert done.code in (0, 3), done

    @rule(command=st.sampled_from(RUNNING), number=st.integers(0, 600))
    def is_killed(self, command: str, number: int) -> None:
        at = self.arena.boundary(randomness(4, command), command, number)
        done = self._run(command, Fault(at, "kill"))
        assert done.code in (-9, 0, 1, 3), done

    @rule(command=st.sampled_from(RUNNING), number=st.integers(0, 600), what=st.sampled_from(("int", "term")))
    def is_interrupted(self, command: str, number: int, what: str) -> None:
        at = self.arena.boundary(randomness(5, command), command, number)
        done = self._run(command, Fault(at, what))
        assert done.code in (0, 1, 3, 130, 143), done

    @rule(
        command=st.sampled_from(RUNNING), number=st.integers(0, 600), how=st.sampled_from(LASTING), once=st.booleans()
    )
    def disk_refuses(self, command: str, number: int, how: tuple[str, tuple[str, ...]], once: bool) -> None:
        at = self.arena.boundary(randomness(6, command), command, number)
        fault = Fault(at, "EAGAIN" if at.kind == "spawn" else how[0], () if once else how[1])
        done = self._run(command, fault)
        assert done.code in (0, 1, 3, 6), (str(fault), str(done))

    @precondition(lambda self: self.world.state() == "created")
    @rule(kill=st.booleans())
    def second_process(self, kill: bool) -> None:
        """While one makes machines slowly, a second is refused; the first may be killed: its OpenTofu outlives it."""
        self.arena.write(self.world, options={"pause": "1"})
        self._count("second process")
        running = self.world.start("provision", "-f", "demo.yml", "--yes")
        until(lambda: any(self.world.things.glob("*.began")) or running.poll() is not None)
        if running.poll() is None:
            if kill:
                running.send(signal.SIGKILL)
            refused = self.world.run("destroy", "demo", "--yes")
            assert refused.code == 4 or not self.world.processes(), refused
        running.wait()
        until(lambda: not self.world.processes(), 30)

    @precondition(lambda self: self.world.reality())
    @rule()
    def machine_is_lost(self) -> None:
        self._count("machine lost")
        for thing in self.world.things.iterdir():
            thing.unlink()

    @invariant()
    def what_exists_is_not_forgotten(self) -> None:
        nothing_forgotten(self.world)

    @invariant()
    def the_state_tells_the_truth(self) -> None:
        environment = self.world.saved()
        if environment is None:
            return
        if environment.state in ("created", "destroyed"):
            assert not self.world.reality()
            assert environment.resources is Resources.NONE
        if environment.state in ("provisioned", "configured"):
            assert look(self.world.environment / "tofu").condition == "whole"

    @invariant()
    def nobody_holds_it_who_is_gone(self) -> None:
        record = self.world.record()
        assert record is None or record.alive is False or not self.world.processes()

    def teardown(self) -> None:
        try:
            if self.world.state():
                destroyed(self.world)
            assert not self.world.reality()
        finally:
            self.world.close()

    def _run(self, command: str, fault: Fault | None = None) -> Done:
        self._count(fault.do if fault else "undisturbed")
        done = self.world.run(*COMMANDS[command], "--lock-timeout", "60", fault=fault)
        until(lambda: not self.world.processes(), 30)
        return done

    def _count(self, what: str) -> None:
        self.arena.counts[f"life: {what}"] += 1


ATTACKS = (
    Attack(
        "life.machine",
        1,
        "any sequence of commands, kills, interrupts, second processes, refusing disks, lost machines",
        "a hypothesis state machine on a real home",
        machine,
        1,
    ),
)
