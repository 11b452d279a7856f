"""Moves that must not be possible. A type checker reports exactly the lines marked `# error` (test_typing.py)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_never

from deployer.environment import (
    AnyEnvironment,
    Configured,
    ConfigureFailed,
    Configuring,
    Created,
    Destroyed,
    DestroyFailed,
    Destroying,
    Failure,
    Host,
    Provisioned,
    ProvisionFailed,
    Provisioning,
    Resources,
    create,
)
from deployer.errors import FailureKind
from deployer.process import Interrupts
from deployer.storage.repository import EnvironmentRepository, FileRepository

AT = datetime(2026, 1, 1, tzinfo=UTC)
FAILURE = Failure(step="tofu_apply", kind=FailureKind.TOFU, cause="quota", at=AT, log="/log")


def from_created(it: Created) -> None:
    it.start_configure("r", AT)  # error
    it.succeed(AT)  # error
    it.fail(FAILURE)  # error
    it.begin("tofu_init", AT)  # error
    it.expect_resources(AT)  # error
    it.resources_gone(AT)  # error


def from_provisioning(it: Provisioning) -> None:
    it.start_configure("r", AT)  # error
    it.resources_gone(AT)  # error
    wrong: Configured = it.succeed(AT)  # error


def from_provisioned(it: Provisioned) -> None:
    it.begin("tofu_init", AT)  # error
    it.succeed(AT)  # error
    it.fail(FAILURE)  # error
    wrong: Configured = it.start_configure("r", AT)  # error


def from_provision_failed(it: ProvisionFailed) -> None:
    it.start_configure("r", AT)  # error
    it.succeed(AT)  # error


def from_configuring(it: Configuring) -> None:
    it.found_hosts({}, AT)  # error
    it.expect_resources(AT)  # error
    it.resources_gone(AT)  # error


def from_configured(it: Configured) -> None:
    it.end(AT)  # error
    it.fail(FAILURE)  # error


def from_configure_failed(it: ConfigureFailed) -> None:
    it.succeed(AT)  # error
    it.resources_gone(AT)  # error


def from_destroying(it: Destroying) -> None:
    it.start_provision("r", AT, spec={}, file="/d/demo.yml")  # error
    it.start_configure("r", AT)  # error
    it.confirm_resources(AT, exist=True)  # error


def from_destroyed(it: Destroyed) -> None:
    it.start_provision("r", AT, spec={}, file="/d/demo.yml")  # error
    it.start_configure("r", AT)  # error
    it.start_destroy("r", AT)  # error


def from_destroy_failed(it: DestroyFailed) -> None:
    it.start_provision("r", AT, spec={}, file="/d/demo.yml")  # error
    it.start_configure("r", AT)  # error


def from_any(it: AnyEnvironment) -> None:
    it.start_destroy("r", AT)  # error
    it.start_provision("r", AT, spec={}, file="/d/demo.yml")  # error
    it.start_configure("r", AT)  # error


def frozen(it: Created, host: Host) -> None:
    it.resources = Resources.PRESENT  # error
    it.state = "created"  # error
    host.port = 2222  # error


def constructed() -> None:
    create("demo", {}, "/d")  # error
    none, no_hosts = Resources.NONE, dict[str, Host]()
    Created(name="demo", spec={}, file="/d/demo.yml", created_at=AT, changed_at=AT, resources=none, hosts=no_hosts, progress=None)  # error
    Provisioning(name="demo", spec={}, file="/d/demo.yml", created_at=AT, changed_at=AT, resources=none, hosts=no_hosts)  # error
    ProvisionFailed(name="demo", spec={}, file="/d/demo.yml", created_at=AT, changed_at=AT, resources=none, hosts=no_hosts, finished=())  # error
    Created(name="demo", spec={}, file="/d/demo.yml", created_at=AT, changed_at=AT, hosts=no_hosts)  # error
    Host(address="10.0.0.1", user="root", port="22", ports=(), id=None, console=None)  # error


def a_case_forgotten(it: AnyEnvironment) -> str:
    match it:
        case Created() | Provisioned() | Configured() | Destroyed():
            return "settled"
        case Provisioning() | Configuring() | Destroying():
            return "in progress"
        case ProvisionFailed() | ConfigureFailed():
            return "failed"
        case _:
            assert_never(it)  # error


def saved_without_the_lock(repository: EnvironmentRepository, files: FileRepository, it: Created) -> None:
    repository.save(it)  # error
    files.save(it)  # error
    files.hold("demo", "provision", timeout=0, interrupts=Interrupts()).save(it)  # error
    with files.hold("demo", "provision", timeout=0, interrupts=Interrupts()) as held:
        held.save("created")  # error
