"""What all tests share: the checkout's paths, and the OpenTofu they use. Anything more belongs beside its tests."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from deployer.process import Context
from deployer.tofu.binary import find_engine

# Whoever runs the suite in the background of a script, or with nohup, has it start with these ignored, which children
# inherit; then nothing that is interrupted here would notice.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes says more of the computer, and of what else it does, than of us.
settings.register_profile("deployer", deadline=None)
settings.load_profile("deployer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who is not root runs what needs no root, and is told what was left out."""
    for item in items if os.geteuid() != 0 else ():
        if {mark.name for mark in item.iter_markers()} & {"container", "torture", "root"}:
            item.add_marker(pytest.mark.skip("needs root: make test as root runs it"))


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The top level of the checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def engine() -> Path:
    """The OpenTofu that deployer would use: DEPLOYER_TOFU, else the one on PATH, else the one in the cache."""
    return find_engine(Context(os.environ)).path


# Terraform is a second engine for the same tests where it is installed, and never in place of the first.
@pytest.fixture(scope="session", params=["tofu", *(["terraform"] if shutil.which("terraform") else [])])
def any_engine(request: pytest.FixtureRequest, engine: Path) -> Path:
    """OpenTofu, and Terraform where it is installed."""
    return engine if request.param == "tofu" else Path(str(shutil.which("terraform")))
