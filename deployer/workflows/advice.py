"""What remains true of an environment, and what to type next: for errors, for `show`, for RECOVERY.md. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path

from deployer.environment import AnyEnvironment, Destroyed, Environment, Resources


def what_exists(environment: Environment, tofu: Path) -> str:
    """One sentence: what exists, or may."""
    match environment.resources:
        case Resources.NONE:
            return (
                "No machine was made; its hosts were there before." if environment.hosts else "Nothing has been made."
            )
        case Resources.POSSIBLE:
            return f"Machines may exist; what OpenTofu knows of them is in {tofu}."
        case Resources.PRESENT:
            hosts = ", ".join(f"{name} ({host.address} port {host.port})" for name, host in environment.hosts.items())
            return f"The machines exist: {hosts or f'OpenTofu knows them, in {tofu}'}."


_NEXT: dict[str, tuple[str, ...]] = {
    "created": ("up", "plan"),
    "provisioning": ("up", "logs", "destroy"),
    "provision_failed": ("up", "logs", "destroy"),
    "provisioned": ("configure", "ssh", "destroy"),
    "configuring": ("configure", "logs", "ssh", "destroy"),
    "configure_failed": ("configure", "logs", "ssh", "destroy"),
    "configured": ("ssh", "destroy"),
    "destroying": ("destroy", "logs"),
    "destroy_failed": ("destroy", "logs"),
}


def next_commands(environment: AnyEnvironment) -> tuple[str, ...]:
    """Commands to paste, the likeliest first. `environment` is at rest: nobody works on it."""
    if isinstance(environment, Destroyed):
        return (f"deployer create -f {environment.name}.yml",)
    return tuple(f"deployer {command} {environment.name}" for command in _NEXT[environment.state])


def by_hand(tofu: Path) -> str:
    """The command that takes everything away without deployer."""
    return f"cd {shlex.quote(str(tofu))} && tofu destroy"
