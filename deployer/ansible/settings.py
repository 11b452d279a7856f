"""The environment variables Ansible runs with: an allow-list, and settings where the user's ansible.cfg is silent.

ansible-runner writes the whole environment into its artifacts, so nothing may be in it that is a secret.
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path

_PASSED_ON = (
    "HOME", "LOGNAME", "NO_PROXY", "PATH", "SHELL", "SSH_AUTH_SOCK", "TMPDIR", "TZ", "USER", "no_proxy",
)  # fmt: skip
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_OF_THE_USER = ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_ROLES_PATH")


def environment(inherited: Mapping[str, str], *, project: Path | None, scratch: Path, sockets: Path) -> dict[str, str]:
    """The whole environment for a playbook: of the user's where `project` is given, else a bundled one.

    `scratch` takes Ansible's temporary files, `sockets` its SSH control sockets.
    """
    env = {name: inherited[name] for name in _PASSED_ON if name in inherited}
    env |= {name: inherited[name] for name in _PROXIES if "@" not in inherited.get(name, "@")}
    # Ansible refuses to start in a locale that is not UTF-8 or not installed, and ssh hands on whatever a laptop has.
    env["LC_ALL"] = "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8"
    env |= _fixed(scratch, sockets, Path(inherited.get("HOME") or "~").expanduser())
    if project is None:
        return env | _preferred()
    env |= {name: inherited[name] for name in _OF_THE_USER if name in inherited}
    said = _said_by(Path(inherited.get("ANSIBLE_CONFIG") or project / "ansible.cfg"))
    preferred = _preferred() | _searched(project, env.get("HOME", ""))
    return {name: value for name, value in preferred.items() if not _option(name) & said} | env


def _fixed(scratch: Path, sockets: Path, home: Path) -> dict[str, str]:
    env = {
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets),
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_NOCOWS": "True",
        "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "False",
        "ANSIBLE_LOCALHOST_WARNING": "False",
        "PYTHONUNBUFFERED": "1",
    }
    if not (home / ".ansible").exists():
        env["ANSIBLE_HOME"] = str(scratch / "home")  # nothing of the user's to be found there: leave nothing either
    return env


def _preferred() -> dict[str, str]:
    return {"ANSIBLE_FORKS": "20", "ANSIBLE_GATHERING": "smart", "ANSIBLE_PIPELINING": "True"}


def _searched(project: Path, home: str) -> dict[str, str]:
    """The project's own roles and collections, wherever in it the playbook lies, before Ansible's usual places."""
    return {
        "ANSIBLE_ROLES_PATH": os.pathsep.join(
            [f"{project}/roles", f"{home}/.ansible/roles", "/usr/share/ansible/roles", "/etc/ansible/roles"]
        ),
        "ANSIBLE_COLLECTIONS_PATH": os.pathsep.join(
            [f"{project}/collections", f"{home}/.ansible/collections", "/usr/share/ansible/collections"]
        ),
    }


def _option(variable: str) -> set[str]:
    option = variable.removeprefix("ANSIBLE_").lower()
    return {option, f"{option}s"}  # collections_path was collections_paths


def _said_by(config: Path) -> set[str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False, allow_no_value=True)
    try:
        parser.read(config, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):
        return set()  # Ansible itself will say what is wrong with it
    return {option for section in parser.sections() for option in parser.options(section)}
