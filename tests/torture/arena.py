"""What the attacks share: places to work in, one machine that lets us in, what a clean run looks like, the counts."""

from __future__ import annotations

import contextlib
import importlib
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.environment import Resources
from tests.machines.fleet import Fleet, FleetHost
from tests.machines.keys import KeyPair, make_key_pair
from tests.torture.faults import Boundary
from tests.torture.world import Done, World, orphanage, randomness

# What the program imports at its first use; loaded once here, so that the forked ones need not.
_PRELOADED = (
    "deployer.cli.main", "deployer.cli.progress", "deployer.app.deployer", "deployer.app.overview",
    "deployer.workflows.provision", "deployer.workflows.configure", "deployer.workflows.destroy",
    "deployer.tofu.binary", "deployer.config.loading", "filelock",
)  # fmt: skip
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Work
      raw: "true"
"""


@dataclass(frozen=True)
class Attack:
    """A kind of trial. `trial` makes one, and raises AssertionError where something was lost; it is given the arena, a
    source of chance of its own, and the trial's number. `slice` is how many of them the quick suite makes."""

    name: str
    point: int  # of the reliability issue: what must hold
    fault: str
    how: str
    trial: Callable[[Arena, random.Random, int], None]
    slice: int
    command: str = ""  # the command whose boundaries it goes through, one after the other
    each: int = 1  # trials at each of them

    def __str__(self) -> str:
        return self.name


@dataclass
class Arena:
    """A folder to work in, and one real sshd."""

    root: Path
    engine: str
    host: FleetHost
    keys: KeyPair
    long: bool = False  # the long campaign, not the quick suite
    counts: Counter[str] = field(default_factory=Counter)
    _clean: dict[str, tuple[Boundary, ...]] = field(default_factory=dict)
    _numbers: int = 0
    _kept: dict[str, World] = field(default_factory=dict)

    @contextlib.contextmanager
    def world(self, *, home: Path | None = None, **more: Any) -> Iterator[World]:
        """A world with an environment `demo` in the state created, on our machine."""
        world = self.new_world(home=home, **more)
        try:
            yield world
        finally:
            world.close()

    def new_world(self, *, home: Path | None = None, created: bool = True, **more: Any) -> World:
        self._numbers += 1
        world = World(self.root / f"w{self._numbers}", self.engine, home=home)
        self.write(world, **more)
        if created:
            ok(world.run("create", "-f", "demo.yml"))
        return world

    def write(self, world: World, *, count: int = 1, playbook: str = "", **more: Any) -> None:
        one = {"address": self.host.address, "port": self.host.port, "user": "root"}
        if playbook:
            (world.project / "site.yml").write_text(playbook)
            more.setdefault("configure", {"playbooks": ["./site.yml"]})
        more.setdefault("ssh", {"user": "root", "private_key": str(self.keys.private)})
        more.setdefault("hosts", {f"web{number}": one for number in range(1, count + 1)})
        world.write(**more)

    def clean(self, command: str) -> tuple[Boundary, ...]:
        """The boundaries of an undisturbed run of create, provision, configure or destroy."""
        if not self._clean:
            with self.world(playbook=PLAYBOOK, created=False) as world:
                for argv in (("create", "-f", "demo.yml"), ("provision", "demo"), ("configure", "demo"),
                             ("destroy", "demo", "--yes")):  # fmt: skip
                    self._clean[argv[0]] = ok(world.run(*argv)).trace
        return self._clean[command]

    def boundary(
        self, seed_order: random.Random, command: str, number: int, *, kinds: tuple[str, ...] = ()
    ) -> Boundary:
        """The `number`-th boundary of a clean run in a shuffled order that puts those of mere logs last."""
        found = [b for b in self.clean(command) if not kinds or b.kind in kinds]
        seed_order.shuffle(found)
        found.sort(key=lambda b: b.is_log)
        return found[number % len(found)]

    @contextlib.contextmanager
    def standing(self, at: Boundary) -> Iterator[World]:
        """A world whose machine exists, in which `destroy` comes to that boundary: a playbook has left files to remove
        where it removes."""
        removes = at.kind in ("unlink", "rmdir")
        with self.world(playbook=PLAYBOOK if removes else "") as world:
            ok(world.run("up" if removes else "provision", "demo"))
            yield world

    def kept(self, name: str, make: Callable[[], World]) -> World:
        """A world that outlives a trial, because it is dear to make."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def provisioned(self) -> World:
        """A world whose machine waits for its playbook."""
        world = self.new_world(playbook=PLAYBOOK)
        ok(world.run("provision", "demo"))
        return world

    def drop(self, name: str) -> None:
        if world := self._kept.pop(name, None):
            world.close()

    def close(self) -> None:
        for name in list(self._kept):
            self.drop(name)


@contextlib.contextmanager
def arena(engine: str, *, long: bool = False) -> Iterator[Arena]:
    """Needs root, because the machine that we let ourselves into is this one."""
    for name in _PRELOADED:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder, orphanage():
        root = Path(folder).resolve()
        keys = make_key_pair(root)
        with Fleet(root / "fleet", keys.public_text).running(1, first=77) as hosts:
            made = Arena(root, engine, hosts["host1"], keys, long=long)
            try:
                yield made
            finally:
                made.close()


def perform(attack: Attack, where: Arena, seed: int, number: int) -> None:
    """One trial, the same for the same seed and number. AssertionError where something was lost."""
    where.counts[attack.name] += 1
    attack.trial(where, randomness(seed, attack.name, number), number)


def ok(done: Done) -> Done:
    assert done.code == 0, done
    return done


def told(done: Done, *words: str) -> Done:
    """An error is told in four parts, with these words in it."""
    assert done.err.count("deployer: ") >= 1, done
    for part in ("  cause:", "  now:", "  next:"):
        assert part in done.err, (part, str(done))
    for word in words:
        assert word in done.err, (word, str(done))
    return done


def nothing_forgotten(world: World, context: object = "") -> None:
    """The state file can be read, and says that something may exist where something does."""
    environment = world.saved()
    reality = world.reality()
    assert environment is not None or not reality, (reality, context)
    if environment is not None and reality:
        assert environment.resources is not Resources.NONE, (environment.state, reality, context)


def destroyed(world: World) -> None:
    """Takes everything away and looks that it is gone. Waits for orphans. Where OpenTofu may have lost track, `destroy`
    refuses, and what it says must be the way. It also refuses where a killed destroy was over but not saved, because
    the machine's address answers still: it is this computer's."""
    done = world.run("destroy", "demo", "--yes", "--lock-timeout", "120")
    if done.code == 1 and "so this is not called destroyed" in done.err and "still answers" not in done.err:
        told(done, "deployer provision demo --from-start")
        ok(world.run("provision", "demo", "--from-start"))
        done = world.run("destroy", "demo", "--yes")
    if done.code == 1 and "still answers" in done.err:
        told(done, "deployer destroy demo --abandon --yes")
        assert not world.reality(), world.reality()
        done = world.run("destroy", "demo", "--abandon", "--yes")
    ok(done)
    assert world.state() == "destroyed"
    assert not world.reality(), world.reality()
