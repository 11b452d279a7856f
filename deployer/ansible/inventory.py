"""The inventory and the variables that Ansible reads. Knows hosts and keys; refuses to know playbooks and states."""

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.environment import Host
from deployer.errors import FailureKind, StepFailed
from deployer.files import write_private

# Ansible evaluates templates in inventories, and ssh braces after a dollar: a path must not become code. Addresses and
# users cannot: Host sees to that.
_TEMPLATE = re.compile(r"\{\{|\{%|\{#|\$\{")

# An unanswering machine is given up after a minute; nothing is ever asked on a terminal.
_OPTIONS = (
    "BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=/dev/null",
    "ServerAliveInterval=15", "ServerAliveCountMax=4",
)  # fmt: skip

# The system's own Python has the bindings of its package manager; looking for one costs a round trip and finds whatever
# lies on root's PATH. This is the weakest place to say so: the user's group_vars and variables win.
_FOR_ALL = {"ansible_python_interpreter": "/usr/bin/python3"}
_THEIR_SSH_ARGS = "{{ lookup('ansible.builtin.env', 'ANSIBLE_SSH_ARGS') }}"


@dataclass(frozen=True, kw_only=True)
class InventoryEnvironment:
    """An environment's hosts and how to reach them. `ports` has the machine ports that the user declared, `groups` the
    user's own groups, both by host."""

    name: str
    hosts: Mapping[str, Host]
    ssh_key: Path
    known_hosts: Path
    ports: Mapping[str, Sequence[int]]
    groups: Mapping[str, Sequence[str]]

    @property
    def members(self) -> list[tuple[str, str]]:
        """Each host with each group of the user's that it is in."""
        return [(host, group) for host in self.hosts for group in self.groups.get(host, ())]


def inventory_data(environments: Sequence[InventoryEnvironment]) -> dict[str, object]:
    """Ansible's dynamic inventory: a group for each environment, the user's own, all host variables under `_meta`.

    A host keeps its name; where several environments have one of that name, or another one has a group of it, each is
    called `HOST.ENVIRONMENT`. Raises StepFailed (INPUT) for what Ansible or ssh would read as code.
    """
    counts = Counter(name for each in environments for name in (*each.hosts, *(group for _, group in each.members)))
    hostvars: dict[str, object] = {}
    groups: dict[str, dict[str, Any]] = {}
    for environment in environments:
        names = {host: host if counts[host] == 1 else f"{host}.{environment.name}" for host in environment.hosts}
        groups[_group(environment.name)] = {"hosts": list(names.values()), "vars": _FOR_ALL}
        for host, group in environment.members:
            groups.setdefault(group, {"hosts": []})["hosts"].append(names[host])
        hostvars |= {name: _variables(environment, host) for host, name in names.items()}
    return {"all": {"children": list(groups)}, **groups, "_meta": {"hostvars": hostvars}}


def write_inventory(path: Path, environment: InventoryEnvironment) -> None:
    """Writes the environment's static inventory, 0600. `path` must end in .json, or Ansible does not recognise it.

    Raises StepFailed as `inventory_data` does, and OSError.
    """
    hosts = {host: _variables(environment, host) for host in environment.hosts}
    for variables in hosts.values():
        # ssh takes the first value it is given, and ssh_args come first of all: a user's must not turn ours off.
        variables["ansible_ssh_args"] = f"{variables['ansible_ssh_common_args']} {_THEIR_SSH_ARGS}"
    groups: dict[str, dict[str, Any]] = {_group(environment.name): {"hosts": hosts, "vars": _FOR_ALL}}
    for host, group in environment.members:
        groups.setdefault(group, {"hosts": {}})["hosts"][host] = {}
    write_private(path, {"all": {"children": groups}})


def ssh_word(path: Path) -> str:
    """`path` as ssh reads it inside double quotes in an option: quotes, backslashes and percent signs taken as such."""
    if _TEMPLATE.search(str(path)):
        raise StepFailed(f"the path {path} cannot be used: its braces would be evaluated", kind=FailureKind.INPUT)
    return str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _variables(environment: InventoryEnvironment, name: str) -> dict[str, object]:
    host = environment.hosts[name]
    options = [*_OPTIONS, f'UserKnownHostsFile="{ssh_word(environment.known_hosts)}"']
    return {
        "ansible_host": host.address,
        "ansible_port": host.port,
        "ansible_user": host.user,
        "ansible_ssh_private_key_file": ssh_word(environment.ssh_key),  # Ansible puts the double quotes itself
        "ansible_ssh_common_args": shlex.join(word for option in options for word in ("-o", option)),
        "deployer_environment": environment.name,
        "deployer_host": name,
        "deployer_address": host.address,
        "deployer_ports": sorted(set(environment.ports.get(name, ()))),
        "deployer_forwards": [{"host": forward.host, "machine": forward.machine} for forward in host.ports],
    }


def _group(name: str) -> str:
    """Depends on nothing else, and collides with nothing: no name of a host or an environment has an underscore, and no
    group of the user's begins so."""
    return "env_" + name.replace("-", "_")
