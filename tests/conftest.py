"""What all tests share: the checkout's paths. Anything more belongs beside the tests that use it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The top level of the checkout."""
    return Path(__file__).resolve().parent.parent
