"""The environment variables Ansible runs with: an allow-list, and our settings where the user has no ansible.cfg.

ansible-runner writes the whole environment into its artifacts, so nothing may be in it that is a secret.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

_PASSED_ON = ("HOME", "LOGNAME", "PATH", "SHELL", "SSH_AUTH_SOCK", "TMPDIR", "TZ", "USER")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_OF_THE_USER = ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_ROLES_PATH")
_PREFERRED = {"ANSIBLE_FORKS": "20", "ANSIBLE_GATHERING": "smart", "ANSIBLE_PIPELINING": "True"}


def environment(inherited: Mapping[str, str], *, project: Path | None, scratch: Path, sockets: Path) -> dict[str, str]:
    """The whole environment for a playbook: of the user's where `project` is given, else a bundled one.

    `scratch` takes Ansible's temporary files, `sockets` its SSH control sockets.
    """
    wanted = _PASSED_ON if project is None else (*_PASSED_ON, *_OF_THE_USER)
    env = {name: value for name, value in inherited.items() if name in wanted}
    env |= {name: value for name, value in inherited.items() if name.lower() in _PROXIES and "@" not in value}
    env |= {
        # Ansible refuses a locale that is not UTF-8 or not installed, and ssh hands on whatever a laptop has.
        "LC_ALL": "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(sockets),
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_NOCOWS": "True",
        "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "False",
    }
    if project is not None and Path(inherited.get("ANSIBLE_CONFIG") or project / "ansible.cfg").is_file():
        return env  # it rules alone
    return _PREFERRED | env
