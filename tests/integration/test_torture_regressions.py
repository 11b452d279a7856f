"""What the attacks have found, one test each, with the reason why it must stay mended."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from deployer.process import Context
from deployer.tofu.binary import find_engine
from tests.torture.arena import Arena, arena, destroyed, nothing_forgotten, ok, told
from tests.torture.faults import Boundary, Fault
from tests.torture.interrupts import began
from tests.torture.terminal import Terminal
from tests.watching import until

pytestmark = pytest.mark.torture


@pytest.fixture(scope="module")
def where() -> Iterator[Arena]:
    engine = find_engine(Context(os.environ))
    with arena(str(engine.path)) as made:
        yield made


def test_a_key_of_the_users_own_is_enough(where: Arena) -> None:
    """Only our own key pair made the folder of known_hosts, so with `ssh.private_key` no host key could be pinned."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        assert (world.environment / "ssh" / "known_hosts").read_text()
        assert not (world.environment / "ssh" / "id_ed25519").exists()
        destroyed(world)


def test_an_interrupted_helper_is_no_bad_answer(where: Arena) -> None:
    """Ctrl+C while ssh-keygen or `tofu version` ran was told as an unusable key, or as a tool that is missing."""
    for child in ("ssh-keygen", "tofu-version"):
        with where.world() as world:
            done = world.run("provision", "demo", fault=Fault(Boundary("spawn", child, 1), "int"))
            assert done.code == 130, done
            ok(world.run("provision", "demo"))
            destroyed(world)


def test_a_closed_terminal_leaves_the_exit_code_alone(where: Arena) -> None:
    """The interpreter's last flush to a terminal that is gone fails, and made 120 of our 129."""
    with where.world(options={"pause": "1"}) as world, Terminal(world, "provision", "demo") as terminal:
        began(world)
        terminal.hang_up()
        assert terminal.wait() == 128 + signal.SIGHUP
        until(lambda: not world.processes(), 20)
        destroyed(world)


def test_a_doubtful_destroy_does_not_bar_its_own_way_out(where: Arena) -> None:
    """It used to leave destroy_failed, from where the `provision --from-start` that it advised is refused."""
    with where.world(options={"pause": "20"}) as world:
        running = world.start("provision", "demo")
        began(world)
        record = world.record()
        assert record is not None
        for child in record.children:
            os.kill(child.pid, signal.SIGKILL)
        assert running.wait().code == 1
        told(
            world.run("destroy", "demo", "--yes"),
            "so this is not called destroyed",
            "deployer provision demo --from-start",
        )
        assert world.state() == "provision_failed"
        where.write(world)
        ok(world.run("provision", "-f", "demo.yml", "--from-start", "--yes"))
        destroyed(world)


def test_a_state_that_was_not_pushed_is_not_planned_over(where: Arena) -> None:
    """`up` after errored.tfstate went on from the older state: each machine a second time, the first ones forgotten."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        tofu = world.environment / "tofu"
        (tofu / "terraform.tfstate").rename(tofu / "errored.tfstate")
        done = told(world.run("provision", "demo", "--from-start", "--yes"), "tofu state push errored.tfstate")
        assert done.code == 1
        assert (tofu / "errored.tfstate").exists()
        assert not (tofu / "terraform.tfstate").exists()


@pytest.mark.parametrize("older", [True, False])
def test_an_empty_errored_state_bars_no_way(where: Arena, older: bool) -> None:
    """A full disk leaves errored.tfstate without a byte: all commands refused for ever, with a push that cannot work.
    Nor is the older state beside it trusted: it may not know all that was made."""
    with where.world(options={"script": "exit 1"}) as world:
        assert world.run("provision", "demo").code == 1
        (world.environment / "tofu" / "errored.tfstate").touch()
        if not older:
            (world.environment / "tofu" / "terraform.tfstate").unlink()
        told(world.run("destroy", "demo", "--yes"), "so this is not called destroyed", "provision demo --from-start")
        where.write(world)
        ok(world.run("provision", "-f", "demo.yml", "--from-start", "--yes"))
        assert not (world.environment / "tofu" / "errored.tfstate").exists(), "or the doubt would stay for ever"
        destroyed(world)


@pytest.mark.parametrize("spoil", ["folder", "utf-16"])
def test_a_state_that_is_no_state_is_damaged(where: Arena, spoil: str) -> None:
    """A folder in the place of terraform.tfstate was an internal error; UTF-16, which json reads and OpenTofu does not,
    was taken for a whole state."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        path = world.environment / "tofu" / "terraform.tfstate"
        whole = path.read_text()
        path.unlink()
        path.mkdir() if spoil == "folder" else path.write_text(whole, encoding="utf-16")
        assert "differs: OpenTofu's state is damaged" in ok(world.run("show", "demo", "--refresh")).out
        told(world.run("destroy", "demo", "--yes"), "is damaged")
        assert world.reality()


def test_modes_do_not_depend_on_the_umask_or_the_module(where: Arena) -> None:
    """Copies kept the module's modes: readable by others, or read-only, so that the next copy failed."""
    with where.world() as world:
        below = world.module / "below"
        below.mkdir()
        (below / "note.txt").write_text("x")
        (below / "note.txt").chmod(0o444)
        below.chmod(0o555)
        ok(world.run("provision", "demo", umask=0))
        tofu = world.environment / "tofu"
        assert {path.stat().st_mode & 0o777 for path in tofu.rglob("*") if path.is_file()} <= {0o600, 0o700}
        assert (tofu / "below").stat().st_mode & 0o777 == 0o700
        destroyed(world)


def test_a_refused_unlock_does_not_undo_what_was_done(where: Arena) -> None:
    """An error from the unlock after the last save was told as an internal error of a command that had succeeded."""
    with where.world() as world:
        ok(world.run("provision", "demo", fault=Fault(Boundary("flock", "environment.lock", 2), "EIO")))
        destroyed(world)


def test_the_first_save_tells_what_exists_too(where: Arena) -> None:
    """A disk that refused the very first save was told without a word of the machines and of the way to remove them."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        at = Boundary("fsync", "demo", 1)
        done = told(world.run("destroy", "demo", "--yes", fault=Fault(at, "EIO")), "Machines were made", "tofu destroy")
        nothing_forgotten(world, done)
        destroyed(world)


@pytest.mark.parametrize("what", ["module", "values"])
def test_destroy_outlives_a_change_that_cannot_be_read(where: Arena, what: str) -> None:
    """A failed change left its module and values in our copy; destroy failed on them even when they had been mended."""
    with where.world() as world:
        ok(world.run("provision", "demo"))
        if what == "module":
            (world.module / "wrong.tf").write_text("resource {")
        else:
            where.write(world, options={"pause": ["no", "string"]})
        assert world.run("provision", "-f", "demo.yml", "--from-start", "--yes").code == 1
        world.run("destroy", "demo", "--yes")
        (world.module / "wrong.tf").unlink(missing_ok=True)
        destroyed(world)


def test_a_tool_that_does_not_start_is_told_with_the_next_command(where: Arena) -> None:
    """Where no process was to be had for `tofu version`, the error ended without what to type."""
    with where.world() as world:
        fault = Fault(Boundary("spawn", "tofu-version", 1), "EAGAIN", ("spawn",))
        done = told(world.run("provision", "demo", fault=fault), "deployer doctor")
        assert done.code == 6
        ok(world.run("provision", "demo"))
        destroyed(world)
