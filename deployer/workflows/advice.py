"""What remains true of an environment, and what to type next: for errors, for `show`, for RECOVERY.md. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path

from deployer.environment import (
    AnyEnvironment,
    Configured,
    ConfigureFailed,
    Configuring,
    Created,
    Destroyed,
    DestroyFailed,
    Destroying,
    Environment,
    Provisioned,
    ProvisionFailed,
    Provisioning,
    Resources,
)


def what_exists(environment: Environment, tofu: Path) -> str:
    """One sentence: what exists, or may."""
    match environment.resources:
        case Resources.NONE:
            return "No machine was made; its hosts were there before." if environment.hosts else "Nothing has been made."
        case Resources.POSSIBLE:
            return f"Machines may exist; what OpenTofu knows of them is in {tofu}."
        case Resources.PRESENT:
            hosts = ", ".join(f"{name} ({host.address} port {host.port})" for name, host in environment.hosts.items())
            return f"The machines exist: {hosts or f'OpenTofu knows them, in {tofu}'}."


def next_commands(environment: AnyEnvironment) -> tuple[str, ...]:
    """Commands to paste, the likeliest first. `environment` is at rest: nobody works on it."""
    name = environment.name
    match environment:
        case Created():
            return (f"deployer up {name}", f"deployer plan {name}")
        case Provisioning() | ProvisionFailed():
            return (f"deployer up {name}", f"deployer logs {name}", f"deployer destroy {name}")
        case Provisioned():
            return (f"deployer configure {name}", f"deployer ssh {name}", f"deployer destroy {name}")
        case Configuring() | ConfigureFailed():
            return (
                f"deployer configure {name}",
                f"deployer logs {name}",
                f"deployer ssh {name}",
                f"deployer destroy {name}",
            )
        case Configured():
            return (f"deployer ssh {name}", f"deployer destroy {name}")
        case Destroying() | DestroyFailed():
            return (f"deployer destroy {name}", f"deployer logs {name}")
        case Destroyed():
            return (f"deployer create -f {name}.yml",)


def by_hand(tofu: Path, engine: str = "tofu") -> str:
    """The command that takes everything away without deployer."""
    return f"cd {shlex.quote(str(tofu))} && {engine} destroy"
