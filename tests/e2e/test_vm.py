"""One full path on a real virtual machine, with the installed wheel, in an empty directory, as a user would go it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.project import Project, plain
from tests.machines.container.machine import Process
from tests.watching import until

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

NAME = "demo"


@pytest.fixture
def installed(checkout: Path, tmp_path: Path) -> Path:
    """The `deployer` of a wheel, built from this checkout and installed into a virtual environment of its own."""
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(checkout)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    return venv / "bin" / "deployer"


def test_the_main_job(installed: Path, project: Project) -> None:
    project.program = installed
    project.name, project.patience = NAME, 900

    def qemu() -> dict[int, str]:
        return {pid: argv for pid, argv in project.processes().items() if "qemu-system" in argv}

    assert plain(project.run("init").out) == "Wrote demo.yml Next: deployer up demo.yml "
    spec = yaml.safe_load((project.path / "demo.yml").read_text())
    # Nothing of the example is changed but what takes minutes in an emulated machine, and a port that may be taken.
    spec["configure"]["playbooks"] = ["web"]
    (forward,) = spec["hosts"]["web"]["ports"].values()
    spec["hosts"]["web"]["ports"] = {0: forward}
    (project.path / "demo.yml").write_text(yaml.safe_dump(spec))

    up = project.run("up", "demo.yml")
    assert plain(up.out).startswith("demo: configured, in ")
    (port,) = [p["host"] for p in project.show["hosts"]["web"]["ports"]]
    assert NAME in project.page(port)
    assert project.run("ssh", NAME, "--", "cloud-init status").out == "status: done\n"
    before = project.state_file.read_bytes()
    first = qemu()
    assert len(first) == 1

    # Again: nothing to do.
    assert "nothing to do" in project.run("up", "demo.yml").err
    assert project.state_file.read_bytes() == before
    assert qemu() == first

    # It reboots behind our back: for a while it does not answer, or lets nobody in, and that is all there is to say.
    booted = boot(project)
    project.run("ssh", NAME, "--", "sudo systemctl reboot", code=None)
    told: set[str] = set()
    while boot(project) in ("", booted):
        told.update(reality(project))
    expected = ("same:", "differs: web does not answer at ", "differs: web answers at ")
    said = [line for line in told if not line.startswith(expected)]
    assert not said, said
    until(lambda: all(line.startswith("same:") for line in reality(project)), 120, "it answers again")
    until(lambda: answers(project, port), 120, "the page is there again")
    assert project.state_file.read_bytes() == before

    # The machine is killed behind our back: that is said where it is asked for, and `up` mends it, on its own disk.
    project.run("ssh", NAME, "--", "echo kept > kept && sync")
    (pid,) = first
    os.kill(pid, signal.SIGKILL)
    until(lambda: Process.of(pid) is None, 120, "the machine is gone")
    found = reality(project)
    assert [line for line in found if line.startswith("differs: web does not answer")], found
    assert project.state_file.read_bytes() == before
    declined = project.run("up", "demo.yml", code=2)
    assert "OpenTofu's plan" in declined.err
    project.run("up", "demo.yml", "--yes")
    assert project.state["state"] == "configured"
    (port,) = [p["host"] for p in project.show["hosts"]["web"]["ports"]]
    until(lambda: answers(project, port), 120, "the page is there again")
    assert len(qemu()) == 1
    assert project.run("ssh", NAME, "--", "cat kept").out == "kept\n"

    # Nothing is left.
    project.run("destroy", NAME, "--yes")
    assert project.run("status", NAME).out == "destroyed\n"
    assert project.processes() == {}
    assert not answers(project, port)
    left = {path.name for path in project.folder.iterdir()}
    assert left == {"environment.json", "environment.lock", "events.jsonl", "logs"}
    assert json.loads((project.folder / "events.jsonl").read_text().splitlines()[-1])["kind"] == "run_finished"


def boot(project: Project) -> str:
    """Which boot the machine is in; nothing while it does not let us in."""
    return project.run("ssh", NAME, "--", "cat /proc/sys/kernel/random/boot_id", code=None).out.strip()


def reality(project: Project) -> list[str]:
    found = project.run("show", NAME, "--refresh", "--output", "json").data["reality"]
    assert isinstance(found, list)
    return found


def answers(project: Project, port: int) -> bool:
    try:
        return NAME in project.page(port)
    except OSError:
        return False
