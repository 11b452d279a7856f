"""The specification explained: the example that `init` writes, and the JSON Schema for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deployer.config.model import Spec

EXAMPLE_NAME = "demo.yml"


def example() -> str:
    """The commented file that `deployer init` writes; it works as it stands."""
    return Path(__file__).with_name(EXAMPLE_NAME).read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file (draft 2020-12)."""
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "An environment of deployer"}
    return {**Spec.model_json_schema(), **title}
