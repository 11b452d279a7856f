"""The environment and its states: frozen values, legal transitions, encoding. Refuses to know disks and tools."""

from deployer.environment.erased import (
    STATES,
    AnyEnvironment,
    Failed,
    InProgress,
    NotAnEnvironment,
    encode,
    restore,
)
from deployer.environment.facts import Failure, FinishedStep, Host, PortForward, Progress, Resources
from deployer.environment.states import (
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
    create,
)

__all__ = [
    "STATES",
    "AnyEnvironment",
    "ConfigureFailed",
    "Configured",
    "Configuring",
    "Created",
    "DestroyFailed",
    "Destroyed",
    "Destroying",
    "Environment",
    "Failed",
    "Failure",
    "FinishedStep",
    "Host",
    "InProgress",
    "NotAnEnvironment",
    "PortForward",
    "Progress",
    "ProvisionFailed",
    "Provisioned",
    "Provisioning",
    "Resources",
    "create",
    "encode",
    "restore",
]  # fmt: skip
