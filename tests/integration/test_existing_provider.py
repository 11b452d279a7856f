"""tofu/existing by hand: what is given comes out, and nothing is ever made or ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROVIDER = Path(__file__).resolve().parents[2] / "tofu" / "existing"


def tofu(folder: Path, *arguments: str, rc: int = 0) -> str:
    caches = os.environ.get("DEPLOYER_CACHE", "") or str(
        Path(os.environ.get("XDG_CACHE_HOME", "") or Path.home() / ".cache") / "deployer"
    )
    binary = shutil.which(os.environ.get("DEPLOYER_TOFU", "tofu")) or f"{caches}/bin/tofu"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    ended = subprocess.run(
        [binary, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert ended.returncode == rc, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(PROVIDER, tmp_path / "tofu")
    return tmp_path / "tofu"


def write(folder: Path, hosts: dict[str, Any]) -> None:
    # All that deployer writes for every provider.
    variables = {
        "environment": "test",
        "hosts": hosts,
        "user_data": dict.fromkeys(hosts, "#cloud-config\n{}"),
        "ssh_public_key": "ssh-ed25519 AAAA nobody",
    }
    (folder / "terraform.tfvars.json").write_text(json.dumps(variables))


def test_machines_are_handed_through_and_left_alone(folder: Path) -> None:
    ports = [{"host": 8080, "machine": 80}]
    write(
        folder, {"web": {"address": "192.0.2.1", "ports": ports}, "db": {"address": "::1", "port": 2222, "user": "me"}}
    )
    tofu(folder, "init", "-no-color")
    assert "Warning" not in tofu(folder, "apply", "-auto-approve", "-no-color")
    assert json.loads(tofu(folder, "output", "-json", "hosts")) == {
        "web": {"address": "192.0.2.1", "port": 22, "user": None, "ports": [{"host": 80, "machine": 80}]},
        "db": {"address": "::1", "port": 2222, "user": "me", "ports": []},
    }
    tofu(folder, "plan", "-detailed-exitcode", "-no-color")
    assert json.loads((folder / "terraform.tfstate").read_text())["resources"] == []
    assert "0 destroyed" in tofu(folder, "destroy", "-auto-approve", "-no-color")
    assert "0 destroyed" in tofu(folder, "destroy", "-auto-approve", "-no-color")


def test_a_machine_without_an_address_is_refused_by_name(folder: Path) -> None:
    write(folder, {"web": {"cpus": 2}})
    tofu(folder, "init", "-no-color")
    assert '"address" is required' in tofu(folder, "plan", "-no-color", rc=1)
