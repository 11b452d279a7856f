"""A reader's terminal in an empty folder, and what was left in it taken away afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.shell import Shell, environment, take_away


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    project = tmp_path / "project"
    project.mkdir()
    shell = Shell(project, environment(tmp_path))
    yield shell
    take_away(shell)
