"""The executable inventory as Ansible runs it: which deployer it finds, and what it asks of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ECHO = """#!/bin/sh
echo '{"_meta": {"hostvars": {"web": {"asked": "'"$*"'"}}}, "env_demo": {"hosts": ["web"]}}'
"""


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize(("environment", "asked"), [("", "inventory --list"), ("demo", "inventory demo --list")])
def test_ansible_asks_deployer(tmp_path: Path, checkout: Path, beside: bool, environment: str, asked: str) -> None:
    script = tmp_path / "a project" / "inventory" / "deployer"
    program(script, (checkout / "inventory" / "deployer").read_text())
    found = script.parent.parent / ".venv" / "bin" if beside else tmp_path / "bin"
    program(found / "deployer", ECHO)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "DEPLOYER_ENVIRONMENT": environment}
    tool = Path(sys.executable).with_name("ansible-inventory")
    shown = subprocess.run(
        [tool, "-i", script, "--list"], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert shown.returncode == 0, shown.stderr
    data = json.loads(shown.stdout)
    assert data["env_demo"]["hosts"] == ["web"]
    assert data["_meta"]["hostvars"]["web"]["asked"] == asked


def test_without_a_deployer_in_sight_python_is_asked(tmp_path: Path, checkout: Path) -> None:
    script = program(tmp_path / "inventory" / "deployer", (checkout / "inventory" / "deployer").read_text())
    for name in ("sh", "dirname"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).symlink_to(str(shutil.which(name)))
    program(tmp_path / "bin" / "python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    env = {"PATH": str(tmp_path / "bin"), "PYTHONPATH": str(checkout), "DEPLOYER_HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    shown = subprocess.run([script, "--list"], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["_meta"] == {"hostvars": {}}


def test_a_home_that_is_not_there_does_not_pass_for_an_empty_one(tmp_path: Path, checkout: Path) -> None:
    """A misspelt DEPLOYER_HOME gave an inventory without hosts, and a play on none of them succeeds."""
    env = {**os.environ, "DEPLOYER_HOME": str(tmp_path / "nowhere"), "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True"}
    tool = Path(sys.executable).with_name("ansible-inventory")
    script = checkout / "inventory" / "deployer"
    shown = subprocess.run(
        [tool, "-i", script, "--list"], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert shown.returncode != 0
    assert f"there is no home {tmp_path / 'nowhere'}" in shown.stderr
