"""Projects for the end-to-end tests; whatever a test makes is taken down behind it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.project import Project
from tests.machines import Fleet, FleetHost, make_key_pair, reap


@pytest.fixture
def environ(engine: Path) -> dict[str, str]:
    """What a user's shell would give; nothing of the developer's own settings."""
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME", "DEPLOYER_CACHE") if name in os.environ
    }
    return {**kept, "LANG": "C.UTF-8", "DEPLOYER_TOFU": str(engine)}


@pytest.fixture
def project(tmp_path: Path, environ: dict[str, str]) -> Iterator[Project]:
    reap()
    path = tmp_path / "project"
    path.mkdir()
    project = Project(path, environ)
    yield project
    project.take_down()


@pytest.fixture
def fleet(project: Project) -> Iterator[Callable[[int], dict[str, FleetHost]]]:
    """`fleet(3)` gives three hosts that let `key` in the project in, as root."""
    keys = make_key_pair(project.path, "key")
    running = []

    def start(count: int) -> dict[str, FleetHost]:
        context = Fleet(project.path.parent / "fleet", keys.public_text).running(count)
        hosts = context.__enter__()
        running.append(context)
        return hosts

    yield start
    for context in running:
        context.__exit__(None, None, None)
