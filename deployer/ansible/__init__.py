"""Ansible: inventory and variables in, events out. Knows no states and no OpenTofu."""

from deployer.ansible.connections import kept_connections
from deployer.ansible.inventory import InventoryEnvironment, inventory_data, write_inventory, write_private
from deployer.ansible.playbook import PlaybookRun, ansible_playbook, run_playbook

__all__ = [
    "InventoryEnvironment", "PlaybookRun", "ansible_playbook", "inventory_data", "kept_connections", "run_playbook",
    "write_inventory", "write_private",
]  # fmt: skip
