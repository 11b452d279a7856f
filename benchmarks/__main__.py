"""Prints each thing we do beside what it is measured against, and how many times longer it takes."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measuring import Comparison, compare, program
from deployer.environment import AnyEnvironment, Host, create, encode, restore
from deployer.files import write_atomically
from deployer.process import Interrupts
from deployer.storage.repository import FileRepository

UNAVOIDABLE = "from pydantic import BaseModel, TypeAdapter"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def environment() -> AnyEnvironment:
    """A usual one: a host, some steps done."""
    created = create("demo", {"name": "demo", "hosts": {"web": {"cpus": 2}}}, "/srv/demo.yml", AT)
    run = created.start_provision("r1", AT, spec=created.spec, file=created.file)
    for step in ("render_tofu", "tofu_init", "tofu_validate", "tofu_plan", "tofu_apply"):
        run = run.begin(step, AT).end(AT)
    host = Host(address="127.0.0.1", port=2222, user="deployer", ports=(), id=None, console=None)
    return run.found_hosts({"web": host}, AT)


def times(number: int, action: Callable[[], object]) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(number):
            action()

    return repeated


def benchmarks(home: Path, rounds: int) -> list[tuple[str, str, float | None, Comparison, int]]:
    """Title, what it is measured against, the target, the measurement, how many actions each sample has."""
    repository = FileRepository(home)
    saved = environment()
    with repository.hold("demo", "create", timeout=0, interrupts=Interrupts(), new=True) as held:
        held.save(saved)
    text = encode(saved)
    state, lock, plain = repository.folder("demo").state, repository.folder("demo").lock, home / "plain"
    cli = str(Path(sys.executable).with_name("deployer"))
    environ = {"DEPLOYER_HOME": str(home)}

    def locked() -> None:
        with repository.hold("demo", "provision", timeout=0, interrupts=Interrupts()):
            pass

    def flock() -> None:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def synced() -> None:
        with plain.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    status = program(cli, "status", "demo", environ=environ)
    show = program(cli, "show", "demo", environ=environ)
    pydantic = program(sys.executable, "-c", UNAVOIDABLE)
    python = program(sys.executable, "-c", "pass")
    return [
        ("deployer status", f"python -c '{UNAVOIDABLE}'", 1.5, compare(status, pydantic, rounds), 1),
        ("deployer status", "python -c pass", None, compare(status, python, rounds), 1),
        ("deployer show", f"python -c '{UNAVOIDABLE}'", None, compare(show, pydantic, rounds), 1),
        ("load a state", "read the file", None,
         compare(times(200, lambda: repository.load("demo")), times(200, state.read_bytes), rounds), 200),
        ("restore a state", "encode it", None,
         compare(times(200, lambda: restore(text)), times(200, lambda: encode(saved)), rounds), 200),
        ("write a state", "write and fsync", None,
         compare(times(20, lambda: write_atomically(state, text.encode())), times(20, synced), rounds), 20),
        ("write a state", "write only", None,
         compare(times(20, lambda: write_atomically(state, text.encode())),
                 times(20, lambda: plain.write_text(text)), rounds), 20),
        ("lock, record, release", "open and flock", None,
         compare(times(50, locked), times(50, flock), rounds), 50),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21, help="samples of each; medians are printed (21)")
    rounds = parser.parse_args().rounds
    print(f"{'ours':24}{'ms':>9}   {'against':50}{'ms':>9}{'ratio':>9}{'cpu ratio':>11}")
    with tempfile.TemporaryDirectory(prefix="deployer-benchmarks-") as home:
        for title, against, target, measured, actions in benchmarks(Path(home), rounds):
            ours, theirs = (s.wall * 1000 / actions for s in (measured.ours, measured.theirs))
            line = f"{title:24}{ours:9.3f}   {against:50}{theirs:9.3f}"
            line += f"{measured.ratio.wall:9.2f}{measured.ratio.cpu:11.2f}"
            if target:
                verdict = "kept" if min(measured.ratio.wall, measured.ratio.cpu) <= target else "MISSED"
                line += f"   target {target}: {verdict}"
            print(line)
    print(f"\nMedians of {rounds} rounds, both measured in turns; home in {tempfile.gettempdir()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
