"""The recovery page, executed: each state is reached for real, and left by each of the ways that the page shows."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.docs.pages import CHECKOUT, read_page
from tests.docs.shell import Shell
from tests.docs.world import World

PAGE = read_page(CHECKOUT / "docs" / "recovery.md")


@pytest.fixture
def world(shell: Shell) -> Iterator[World]:
    world = World(shell)
    yield world
    world.close()


def section(world: World, anchor: str) -> str:
    """Does what a section says; what it printed."""
    blocks = PAGE.of("sh", anchor)
    assert blocks, f"no commands under #{anchor}"
    return "".join(world.shell.run(block) for block in blocks)


def interrupted_apply(world: World) -> None:
    world.hold("create")
    world.interrupt(world.until_held("deployer up demo.yml"))


def power_cut_at_apply(world: World) -> None:
    world.hold("create")
    world.power_cut(world.until_held("deployer up demo.yml"))


def invalid_module(world: World) -> None:
    (world.project / "infra" / "typo.tf").write_text('resource "terraform_data" {}\n')
    world.run("deployer up demo.yml", code=1)
    (world.project / "infra" / "typo.tf").unlink()


def failed_apply(world: World) -> None:
    world.fail("create")
    world.run("deployer up demo.yml", code=1)
    world.release()


def broken_output(world: World) -> None:
    module = world.project / "infra" / "main.tf"
    good = module.read_text()
    module.write_text(good.replace('output "hosts"', 'output "machines"'))
    world.run("deployer up demo.yml", code=1)
    module.write_text(good)


def silent_host(world: World) -> None:
    (world.knobs / "create").write_text('touch "$FOLDER/qemu.pid"; exit 0\n')
    world.file.write_text(world.file.read_text().replace("ssh: 60", "ssh: 3"))
    world.run("deployer up demo.yml", code=1)
    world.release()
    # It was only slow: here it comes.
    folder = world.tofu / "machines" / "web"
    key = (world.home / "ssh" / "id_ed25519.pub").read_text().strip()
    start = (world.tofu / "start.sh").read_text()
    late = start[start.index("sshd=$(") :]
    world.run(f"(cd {folder}; export FOLDER={folder} PUBLIC_KEY='{key}'\n{late})")


def failed_cloud_init(world: World) -> None:
    world.in_containers('{runcmd: ["false"]}')
    world.run("deployer up demo.yml", code=1)
    world.file.write_text(world.file.read_text().replace('"false"', '"true"'))


def interrupted_playbook(world: World) -> None:
    world.hold("playbook")
    world.interrupt(world.until_held("deployer up demo.yml"))


def failed_playbook(world: World) -> None:
    world.fail("playbook")
    world.run("deployer up demo.yml", code=1)
    world.release()


def lost_machine(world: World) -> None:
    world.run("deployer up demo.yml")
    os.kill(int((world.tofu / "machines" / "web" / "qemu.pid").read_text()), signal.SIGKILL)


def interrupted_destroy(world: World) -> None:
    world.run("deployer up demo.yml")
    world.hold("destroy")
    world.interrupt(world.until_held("deployer destroy demo --yes"))


def failed_destroy(world: World) -> None:
    world.run("deployer up demo.yml")
    world.fail("destroy")
    world.run("deployer destroy demo --yes", code=1)
    world.release()


@dataclass(frozen=True)
class Case:
    """How a state is reached, which one it is (state, step, resources), and the section that goes on from there."""

    reach: Callable[[World], None]
    state: str
    step: str
    resources: str
    anchor: str
    ends: str = "configured"


CASES = [
    Case(interrupted_apply, "provisioning", "tofu_apply", "possible", "provisioning-interrupted"),
    Case(power_cut_at_apply, "provisioning", "tofu_apply", "possible", "provisioning-interrupted"),
    Case(invalid_module, "provision_failed", "tofu_init", "none", "provision_failed-before-tofu_apply"),
    Case(failed_apply, "provision_failed", "tofu_apply", "possible", "provision_failed-at-tofu_apply"),
    Case(broken_output, "provision_failed", "read_outputs", "present", "provision_failed-at-read_outputs"),
    Case(silent_host, "provision_failed", "wait_ssh", "present", "provision_failed-at-wait_ssh"),
    pytest.param(
        Case(
            failed_cloud_init, "provision_failed", "wait_cloud_init", "present", "provision_failed-at-wait_cloud_init"
        ),
        marks=pytest.mark.container,
    ),
    Case(interrupted_playbook, "configuring", "playbook:site", "present", "configuring-interrupted"),
    Case(failed_playbook, "configure_failed", "playbook:site", "present", "configure_failed"),
    Case(lost_machine, "configured", "", "present", "a-machine-is-gone"),
    Case(interrupted_destroy, "destroying", "tofu_destroy", "present", "destroying-interrupted", "destroyed"),
    Case(failed_destroy, "destroy_failed", "tofu_destroy", "present", "destroy_failed", "destroyed"),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.reach.__name__)


def reach(world: World, case: Case) -> None:
    case.reach(world)
    facts = world.facts()
    failure = facts["failure"]
    step = failure["step"] if isinstance(failure, dict) else facts["step"]
    assert (facts["state"], step, facts["resources"]) == (case.state, case.step, case.resources)
    assert facts["interrupted"] == case.state.endswith("ing")
    told = section(world, "to-look")
    assert case.state in told
    assert case.step in told


def nothing_is_left(world: World) -> None:
    section(world, "to-see-that-nothing-is-left")
    assert world.servers() == []
    assert world.state() == "destroyed"


@each_case
def test_going_on(world: World, case: Case) -> None:
    reach(world, case)
    section(world, case.anchor)
    assert world.state() == case.ends
    if case.ends != "destroyed":
        assert len(world.servers()) == 1, "what was half made was taken up or taken away"
        section(world, "to-take-everything-away")
    nothing_is_left(world)


@each_case
def test_by_hand(world: World, case: Case) -> None:
    reach(world, case)
    if case.resources == "none":  # nor would OpenTofu work with a module that is not valid
        section(world, "to-take-everything-away")
    else:
        section(world, "by-hand")
        section(world, "to-tell-deployer")
    nothing_is_left(world)


def test_locked_by_what_a_killed_deployer_left(world: World) -> None:
    world.hold("create")
    child = world.until_held("deployer up demo.yml")
    child.kill()
    child.wait()
    assert f"kill -INT {world.children()[0]}" in world.run("deployer up demo", code=4)
    later = threading.Timer(1.0, world.release)
    later.start()
    section(world, "locked")
    later.join()
    assert world.state() == "configured"


def test_a_state_that_cannot_be_read(world: World) -> None:
    world.run("deployer up demo.yml")
    (world.home / "environment.json").write_text('{"state": "conf')
    servers = world.servers()
    world.run("deployer show demo", code=5)
    world.run("deployer destroy demo --yes", code=5)
    *going_on, removing = PAGE.of("sh", "the-state-file-cannot-be-read")
    printed = "".join(world.shell.run(block) for block in going_on)
    assert "Invalid JSON" in printed
    assert 'terraform_data.server["web"]' in printed
    assert world.state() == "configured"
    assert world.servers() == servers, "the same machines"
    (world.home / "environment.json").write_text("")
    section(world, "by-hand")
    assert "No environments in" in world.shell.run(removing)
    assert world.servers() == []


def test_tofu_at_work_by_hand(world: World) -> None:
    world.run("deployer up demo.yml")
    other = world.shell.start(f"tofu -chdir={world.tofu} destroy", world.project / "other")
    world.running.append(other)
    world.wait(lambda: (world.tofu / ".terraform.tfstate.lock.info").exists(), other)
    waiting = world.start("deployer destroy demo --yes")
    world.wait(lambda: "may be locked by" in world.output(), waiting)
    assert f"process {other.pid}" in world.output()
    assert '"Operation":"OperationTypeApply"' in section(world, "opentofus-lock-is-held")
    other.communicate(b"no\n", timeout=60)
    assert waiting.wait(timeout=60) == 0, world.output()
    nothing_is_left(world)


def test_destroy_after_a_power_cut_refuses_and_leaves_the_way_open(world: World) -> None:
    power_cut_at_apply(world)
    assert "not called destroyed" in world.run("deployer destroy demo --yes", code=1)
    assert world.state() == "provisioning"
    section(world, "provisioning-interrupted")
    section(world, "to-take-everything-away")
    nothing_is_left(world)


def test_a_machine_whose_files_are_gone(world: World) -> None:
    lost_machine(world)
    shutil.rmtree(world.tofu / "machines" / "web")
    section(world, "to-take-everything-away")
    nothing_is_left(world)


def lost_blocks() -> list[str]:
    return [block.text for block in PAGE.of("sh", "opentofus-state-is-lost")]


def test_a_lost_state_with_a_backup(world: World) -> None:
    world.run("deployer up demo.yml")
    world.run("deployer provision demo --from-start --yes")
    shutil.copy(world.tofu / "terraform.tfstate", world.tofu / "terraform.tfstate.backup")
    (world.tofu / "terraform.tfstate").write_bytes(b"")
    assert "not called destroyed" in world.run("deployer destroy demo --yes", code=1)
    look, restore, _, _ = lost_blocks()
    assert "terraform.tfstate.backup" in world.shell.type(look)
    world.shell.type(restore)
    nothing_is_left(world)


def test_a_lost_state_without_one(world: World) -> None:
    world.run("deployer up demo.yml")
    (world.tofu / "terraform.tfstate").unlink()
    assert "not called destroyed" in world.run("deployer destroy demo --yes", code=1)
    look, _, end, abandon = lost_blocks()
    world.shell.type(look)
    world.shell.type(end)
    world.wait(lambda: not world.servers())
    section(world, "to-see-that-nothing-is-left")
    world.shell.type(abandon)
    nothing_is_left(world)


@pytest.mark.container
def test_a_state_that_could_not_be_written(world: World) -> None:
    """A disk of 64 KiB, of which nothing is left, holds the state; nine more hosts do not fit in."""
    world.run("deployer up demo.yml")
    disk = world.project / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=True)
    try:
        shutil.move(world.tofu / "terraform.tfstate", disk / "state")
        (world.tofu / "terraform.tfstate").symlink_to(disk / "state")
        world.run(f"head -c 100000 /dev/zero > {disk}/other || true")
        more = "".join(f"  host{number}: {{}}\n" for number in range(9))
        world.file.write_text(world.file.read_text().replace("cloud_init:", f"{more}cloud_init:"))
        world.run("deployer up demo.yml --yes", code=1)
        assert (world.tofu / "errored.tfstate").exists()
        assert "tofu state push errored.tfstate" in world.run("deployer destroy demo --yes", code=1)
        (disk / "other").unlink()
        section(world, "errored-tfstate")
        nothing_is_left(world)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.vm
@pytest.mark.timeout(900)
def test_by_hand_with_a_virtual_machine(world: World) -> None:
    world.file.write_text(world.file.read_text().replace("provider: {path: infra}", "provider: local"))
    child = world.start("deployer up demo.yml")
    world.wait(lambda: "wait_ssh: started" in world.output(), child, limit=600)  # an image may be made first
    child.kill()
    child.wait()
    look = next(line for line in PAGE.of("sh", "to-see-that-nothing-is-left")[0].text.splitlines() if "pgrep" in line)
    assert world.name in world.shell.type(look.removeprefix("! ")), "the page's own words find the machine"
    assert "interrupted at wait_ssh" in section(world, "to-look")
    section(world, "by-hand")
    section(world, "to-tell-deployer")
    nothing_is_left(world)


def test_every_state_and_every_section_is_tried() -> None:
    cases = [getattr(case, "values", [case])[0] for case in CASES]
    tried = {case.anchor for case in cases} | {
        *("to-look", "to-take-everything-away", "by-hand", "to-see-that-nothing-is-left", "to-tell-deployer"),
        *("locked", "the-state-file-cannot-be-read", "opentofus-lock-is-held", "opentofus-state-is-lost"),
        "errored-tfstate",
    }
    assert {block.section for block in PAGE.of("sh")} == tried
