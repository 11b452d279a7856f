"""The cloud-config that every provider gets: ours, with the user's merged in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deployer.workflows.provision import cloud_config, merged

KEY = "ssh-ed25519 AAAA deployer-demo"


def document(extra: dict[str, Any], user: str = "deployer") -> dict[str, Any]:
    text = cloud_config(user, KEY, extra)
    assert text.startswith("#cloud-config\n"), "cloud-init goes by the first line"
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def test_ours() -> None:
    assert document({}) == {
        "users": [
            {
                "name": "deployer",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [KEY],
            }
        ],
        "ssh_pwauth": False,
        "locale": False,
        "manage_etc_hosts": "localhost",
    }


def test_what_the_user_adds() -> None:
    extra = {
        "packages": ["htop"],
        "users": [{"name": "me"}],
        "locale": "de_DE.UTF-8",
        "write_files": [{"path": "/etc/motd", "content": "Grüße: 'x' \"y\"\n#: ${not} %s\n"}],
    }
    found = document(extra)
    assert [user["name"] for user in found["users"]] == ["deployer", "me"], "our way in stays"
    assert found["packages"] == ["htop"]
    assert found["locale"] == "de_DE.UTF-8"
    assert found["write_files"] == extra["write_files"]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": [1]}, {"a": [2]}, {"a": [1, 2]}),
        ({"a": [1]}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
        ({}, {"a": 1}, {"a": 1}),
    ],
)
def test_merging(ours: Any, theirs: Any, expected: Any) -> None:
    assert merged(ours, theirs) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=8).filter(lambda k: k not in ("users", "ssh_pwauth", "locale")), json_values))
def test_whatever_the_user_adds_arrives_as_it_was(extra: dict[str, Any]) -> None:
    found = document(extra)
    assert {key: found[key] for key in extra} == extra
    assert found["users"][0]["ssh_authorized_keys"] == [KEY]
