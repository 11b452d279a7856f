"""`make bench` measures what is there: it had rotted unnoticed when a transition got other parameters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_each_thing_is_measured(checkout: Path) -> None:
    argv = [sys.executable, "-m", "benchmarks", "--rounds", "1"]
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    measured = [
        line for line in done.stdout.splitlines() if line.startswith(("deployer ", "load", "restore", "write", "lock"))
    ]
    assert len(measured) == 8
    assert "target 1.5: " in measured[0]
