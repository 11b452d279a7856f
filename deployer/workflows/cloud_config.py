"""The cloud-config handed to any provider: our user and key, and what the user's file adds. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def cloud_config(user: str, public_key: str, extra: Mapping[str, Any]) -> str:
    """The text of a `#cloud-config` document (cloud-init's user-data format).

    `extra` is merged into ours: tables key by key, lists after ours, anything else in place of ours.
    """
    login = {"name": user, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": True}
    # Where an image has no locale, cloud-init's locale module fails (update-locale exits 255).
    ours = {"users": [{**login, "ssh_authorized_keys": [public_key]}], "ssh_pwauth": False, "locale": False}
    # ASCII only: PyYAML writes the rarer line ends of Unicode as they are, and they come back as spaces.
    return "#cloud-config\n" + yaml.safe_dump(merged(ours, extra), sort_keys=False)


def merged(ours: Any, theirs: Any) -> Any:
    """`theirs` merged into `ours`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return {**ours, **{key: merged(ours[key], value) if key in ours else value for key, value in theirs.items()}}
    if isinstance(ours, list) and isinstance(theirs, list):
        return [*ours, *theirs]
    return theirs
