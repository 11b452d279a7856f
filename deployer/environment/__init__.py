"""The environment and its states: frozen values, legal transitions, encoding. Refuses to know disks and tools."""

from deployer.environment.erased import STATES, NotAnEnvironment, encode, restore
from deployer.environment.facts import Failure, FinishedStep, Host, PortForward, Progress, Resources
from deployer.environment.states import (
    AnyEnvironment,
    Configurable,
    Configured,
    ConfigureFailed,
    Configuring,
    Created,
    Destroyed,
    DestroyFailed,
    Destroying,
    Environment,
    Failed,
    InProgress,
    Provisioned,
    ProvisionFailed,
    Provisioning,
    create,
)

__all__ = [
    "STATES", "AnyEnvironment", "Configurable", "ConfigureFailed", "Configured", "Configuring", "Created",
    "DestroyFailed", "Destroyed", "Destroying", "Environment", "Failed", "Failure", "FinishedStep", "Host",
    "InProgress", "NotAnEnvironment", "PortForward", "Progress", "ProvisionFailed", "Provisioned", "Provisioning",
    "Resources", "create", "encode", "restore",
]  # fmt: skip
