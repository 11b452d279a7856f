"""What bad input gets where a machine, a module or a disk is concerned: exit code, four sentences, no harm done."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.project import NAME, VARIABLES, Project, Result

pytestmark = pytest.mark.container

FINE = f"""{VARIABLES}
resource "terraform_data" "paper" {{}}
output "hosts" {{
  value = {{ web = {{ address = "127.0.0.1", port = 9 }} }}
}}
"""


def assert_four_parts(told: Result) -> None:
    lines = told.err.splitlines()
    assert [line for line in lines if line.startswith("deployer: ")], told.err
    for part in ("  cause: ", "  now:   ", "  next:  "):
        assert [line for line in lines if line.startswith(part)], (part, told.err)


MODULES = [
    ("tofu_init", "tofu", 'output "hosts" {\n', "main.tf line 1"),
    ("tofu_validate", "tofu", f'{VARIABLES}\noutput "hosts" {{\n  value = var.nowhere\n}}\n', "(main.tf:6)"),
    ("tofu_plan", "tofu", f'{VARIABLES}\nvariable "token" {{}}\n', "No value for required variable"),
    ("read_outputs", "input", f'{VARIABLES}\nresource "terraform_data" "paper" {{}}\n', "no output `hosts`"),
    (
        "read_outputs",
        "input",
        f'{VARIABLES}\noutput "hosts" {{\n  value = "web"\n}}\n',
        "that is a map",
    ),
    ("read_outputs", "input", f'{VARIABLES}\noutput "hosts" {{\n  value = {{ db = {{}} }}\n}}\n', "does not have web"),
    (
        "read_outputs",
        "input",
        f'{VARIABLES}\noutput "hosts" {{\n  value = {{ web = {{ address = "-oProxyCommand=x", port = 22 }} }}\n}}\n',
        "hosts.web.address",
    ),
]


@pytest.mark.parametrize(("step", "kind", "text", "words"), MODULES, ids=[f"{m[0]}-{m[3]}" for m in MODULES])
def test_a_module_that_cannot_be_used(project: Project, step: str, kind: str, text: str, words: str) -> None:
    project.write(provider=project.module(text), timeouts={"ssh": 1})
    told = project.run("up", f"{NAME}.yml", code=1)
    assert f"environment {NAME}: {step} failed" in told.err
    assert words in told.err
    assert_four_parts(told)
    failure = project.state["failure"]
    assert (failure["step"], failure["kind"]) == (step, kind)


def test_a_module_is_mended_in_its_own_folder(project: Project) -> None:
    """The file stays as it was all along; each command goes on with what is in the folder then."""
    project.write(provider=project.module(MODULES[0][2]), timeouts={"ssh": 1})
    project.run("up", f"{NAME}.yml", code=1)
    failed = [project.state["failure"]["step"]]
    for text in (MODULES[1][2], MODULES[2][2], MODULES[3][2], FINE, FINE.replace("port = 9", "port = 19")):
        project.module(text)
        project.run("up", NAME, code=1)
        failed.append(project.state["failure"]["step"])
    assert failed == ["tofu_init", "tofu_validate", "tofu_plan", "read_outputs", "wait_ssh", "wait_ssh"]
    assert project.state["hosts"]["web"]["port"] == 19
    project.run("destroy", NAME, "--yes")


def test_a_port_that_is_taken(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        project.write(hosts={"web": {"ports": {port: 80}}})
        told = project.run("up", f"{NAME}.yml", code=1)
        assert "tofu_apply failed" in told.err
        assert str(port) in told.err
        assert_four_parts(told)
        assert project.state["resources"] == "possible"
    project.run("up", NAME)
    assert project.state["hosts"]["web"]["ports"] == [{"host": port, "machine": 80}]


def test_a_key_that_cannot_be_used(project: Project) -> None:
    project.write(provider=project.module(FINE), ssh={"private_key": "./key"})
    for arguments in (["up", f"{NAME}.yml"], ["validate", "-f", f"{NAME}.yml"]):
        told = project.run(*arguments, code=2)
        assert "box.yml:" in told.err
        assert "ssh.private_key" in told.err
        assert_four_parts(told)
    assert not project.home.exists()
    key = project.path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)], check=True)
    told = project.run("up", f"{NAME}.yml", code=1)
    assert "render_tofu failed" in told.err
    assert "passphrase" in told.err
    assert_four_parts(told)
    key.write_text("no key at all\n")
    told = project.run("up", NAME, code=1)
    assert "cannot be used" in told.err
    assert_four_parts(told)


def test_no_usable_opentofu_for_a_new_environment(project: Project) -> None:
    project.write(provider=project.module(FINE))
    told = project.run("up", f"{NAME}.yml", code=6, DEPLOYER_TOFU="/not/there")
    assert "Nothing was changed." in told.err
    assert not project.state_file.exists()


def test_a_question_about_another_module_leaves_all_as_it_was(project: Project) -> None:
    """What OpenTofu has noted of modules within the module, too."""
    inner = 'module "tag" {{\n  source = "./{}"\n}}\n'  # OpenTofu notes from where it was taken
    for name in ("one", "two"):
        (project.path / "infra" / name).mkdir(parents=True)
        (project.path / "infra" / name / "main.tf").write_text("")
    project.write(provider=project.module(FINE + inner.format("one")), timeouts={"ssh": 1})
    project.run("up", f"{NAME}.yml", code=1)
    project.module(FINE + inner.format("two"))
    project.run("plan", NAME)
    project.tofu("plan", "-input=false", "-no-color")
    project.module(FINE + inner.format("one"))
    project.run("plan", NAME)
    # What cannot be planned is told with what to type.
    project.module(FINE + 'output "no" {\n  value = var.not_there\n}\n')
    told = project.run("plan", NAME, code=1).err
    assert f"deployer: environment {NAME}: " in told
    assert f"  next:  deployer plan {NAME}    # when it is mended" in told


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (None, "was not found"),
        ('{"terraform_version": "1.5.7"}', "is version 1.5.7, which is too old"),
        ("nothing usable", "says no version"),
    ],
    ids=["missing", "old", "broken"],
)
def test_no_usable_opentofu(project: Project, says: str | None, words: str) -> None:
    project.write(provider=project.module(FINE))
    project.run("create", "-f", f"{NAME}.yml")
    before = project.state_file.read_bytes()
    binary = project.path / "old-tofu"
    if says is not None:
        binary.write_text(f"#!/bin/sh\necho '{says}'\n")
        binary.chmod(0o755)
    for command in (["up", NAME], ["provision", NAME], ["plan", NAME]):
        told = project.run(*command, code=6, DEPLOYER_TOFU=str(binary))
        assert words in told.err
        assert "  next:  unset DEPLOYER_TOFU" in told.err
        assert_four_parts(told)
        assert project.state_file.read_bytes() == before
    assert project.run("status", NAME, DEPLOYER_TOFU=str(binary)).out == "created\n"
    told = project.run("doctor", code=6, DEPLOYER_TOFU=str(binary))
    assert "type: unset DEPLOYER_TOFU" in told.out


def test_no_qemu(project: Project) -> None:
    programs = project.path / "bin"
    programs.mkdir()
    for name in ("sh", "bash", "env", "ssh", "ssh-keygen"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").symlink_to(os.path.realpath(sys.executable))
    project.write(provider="local", hosts={"web": {}})
    told = project.run("up", f"{NAME}.yml", code=1, PATH=str(programs))
    assert "is not installed" in told.err
    assert "apt install qemu" in told.err
    assert_four_parts(told)
    project.run("destroy", NAME, "--yes")


@pytest.fixture
def small_disk(project: Project) -> Iterator[Path]:
    """A home on a disk of its own."""
    project.home.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "none", str(project.home)], check=True)
    try:
        yield project.home
    finally:
        subprocess.run(["umount", "--lazy", str(project.home)], check=True)


def test_a_disk_that_is_full(project: Project, small_disk: Path) -> None:
    project.write(provider=project.module(FINE), timeouts={"ssh": 1})
    project.run("create", "-f", f"{NAME}.yml")
    before = project.state_file.read_bytes()
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    for command in (["up", NAME], ["provision", NAME], ["destroy", NAME, "--yes"]):
        told = project.run(*command, code=1)
        assert "No space left on device" in told.err
        assert_four_parts(told)
        assert project.state_file.read_bytes() == before
        assert [p.name for p in project.folder.glob("environment.json*")] == ["environment.json"], "no half file stays"
    assert project.run("status", NAME).out == "created\n"
    assert "created" in project.run("list").out
    filler.unlink()
    project.run("up", NAME, code=1)
    assert project.state["failure"]["step"] == "wait_ssh", "it goes on where there is room again"
    project.run("destroy", NAME, "--yes")


def test_a_home_that_cannot_be_written(project: Project, small_disk: Path) -> None:
    project.write(provider=project.module(FINE))
    project.run("create", "-f", f"{NAME}.yml")
    before = project.state_file.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (["up", NAME], ["configure", NAME], ["destroy", NAME, "--yes"], ["create", "-f", f"{NAME}.yml"]):
        told = project.run(*command, code=1)
        assert "Read-only file system" in told.err
        assert_four_parts(told)
    assert project.run("status", NAME).out == "created\n"
    assert project.show["state"] == "created"
    assert project.state_file.read_bytes() == before
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_a_damaged_state_is_never_worked_on(project: Project) -> None:
    project.write(provider=project.module(FINE), timeouts={"ssh": 1})
    project.run("up", f"{NAME}.yml", code=1)
    whole = project.state_file.read_bytes()
    damages = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "shape": whole.replace(b'"resources"', b'"resource"'),
        "state": whole.replace(b'"provision_failed"', b'"flying"'),
        "binary": b"\x00\xff" * 100,
    }
    for damage, content in damages.items():
        project.state_file.write_bytes(content)
        before = contents(project)
        for command in (["up", NAME], ["up", f"{NAME}.yml"], ["provision", NAME], ["destroy", NAME, "--yes"]):
            told = project.run(*command, code=5)
            assert str(project.state_file) in told.err, damage
            assert_four_parts(told)
        assert contents(project) == before, damage
    assert project.run("create", "-f", f"{NAME}.yml", code=5)
    assert project.run("destroy", NAME, "--yes", "--abandon", code=5)
    # By hand, as the error says.
    assert "terraform_data.paper" in project.tofu("state", "list")
    project.tofu("destroy", "-auto-approve", "-input=false", "-no-color")
    assert project.tofu("state", "list") == ""


def contents(project: Project) -> dict[Path, bytes]:
    """All of an environment but its lock and the logs of runs."""
    files = (p for p in project.folder.rglob("*") if p.is_file() and p.suffix not in (".lock", ".log"))
    return {path: path.read_bytes() for path in files}
