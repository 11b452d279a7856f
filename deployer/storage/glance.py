"""The quick look at a state file that `status` takes: is it whole and of our shape, and which state does it name.

Prompts ask at every line typed, and building the models to check each value costs more than all the rest. Whatever this
look does not recognise gets the full reading, with its full complaint; tests hold the tables below to the models.
"""

import json
from pathlib import Path

_TEXTS = ("state", "name", "file", "created_at", "changed_at", "resources")
FACTS: dict[str, type] = {**dict.fromkeys(_TEXTS, str), "spec": dict, "hosts": dict}
FURTHER: dict[str, dict[str, type]] = {
    "created": {},
    **{state: {"progress": dict} for state in ("provisioning", "configuring", "destroying")},
    **{state: {"finished": list} for state in ("provisioned", "configured", "destroyed")},
    **{f"{command}_failed": {"finished": list, "failure": dict} for command in ("provision", "configure", "destroy")},
}
_LARGEST = 1024 * 1024  # bytes


def glance(home: Path, name: str) -> str:
    """The state of environment `name`; empty where the file is not there, or deserves the full reading."""
    try:
        with (home / "environments" / name / "environment.json").open("rb") as file:
            data = json.loads(file.read(_LARGEST))
        shape = FACTS | FURTHER[data["state"]]
        known = data.keys() == shape.keys() and all(isinstance(data[key], kind) for key, kind in shape.items())
        return str(data["state"]) if known and data["name"] == name else ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ""
