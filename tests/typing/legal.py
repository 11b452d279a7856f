"""Moves that must be possible: a type checker has nothing to say about this file (test_typing.py)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_never, assert_type

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
    Failed,
    Failure,
    Host,
    InProgress,
    Provisioned,
    ProvisionFailed,
    Provisioning,
    create,
    restore,
)
from deployer.errors import FailureKind
from deployer.process import Interrupts
from deployer.storage.repository import EnvironmentRepository, FileRepository

AT = datetime(2026, 1, 1, tzinfo=UTC)
FAILURE = Failure(step="tofu_apply", kind=FailureKind.TOFU, cause="quota", at=AT, log="/log")


def the_whole_way() -> None:
    created = assert_type(create("demo", {"hosts": {"web": None}}, "/d", AT), Created)
    provisioning = assert_type(created.start_provision("r1", AT, spec={}, file="/d/demo.yml"), Provisioning)
    provisioning = assert_type(provisioning.begin("tofu_apply", AT), Provisioning)
    provisioning = assert_type(provisioning.expect_resources(AT).confirm_resources(AT, exist=True), Provisioning)
    provisioning = provisioning.found_hosts({"web": Host(address="10.0.0.1", user="root", port=22, ports=(), id=None, console=None)}, AT).end(AT)
    assert_type(provisioning.fail(FAILURE), ProvisionFailed)
    provisioned = assert_type(provisioning.succeed(AT), Provisioned)
    configuring = assert_type(provisioned.start_configure("r2", AT), Configuring)
    assert_type(configuring.fail(FAILURE), ConfigureFailed)
    configured = assert_type(configuring.begin("playbook:web", AT).end(AT).succeed(AT), Configured)
    destroying = assert_type(configured.start_destroy("r3", AT), Destroying)
    assert_type(destroying.fail(FAILURE), DestroyFailed)
    assert_type(destroying.resources_gone(AT).succeed(AT), Destroyed)


def again(
    unprovisioned: ProvisionFailed | Provisioning | Provisioned | Configured | ConfigureFailed | Configuring,
    unconfigured: Configuring | ConfigureFailed | Configured,
    there: Created | InProgress | Failed | Provisioned | Configured,
) -> None:
    assert_type(unprovisioned.start_provision("r", AT, spec={}, file="/d/demo.yml"), Provisioning)
    assert_type(unconfigured.start_configure("r", AT), Configuring)
    assert_type(there.start_destroy("r", AT), Destroying)


def every_case(text: str) -> str:
    it: AnyEnvironment = restore(text)
    general: Environment = it
    match it:
        case Created() | Provisioned() | Configured() | Destroyed():
            return it.state
        case Provisioning() | Configuring() | Destroying():
            return it.progress.step or general.name
        case ProvisionFailed() | ConfigureFailed() | DestroyFailed():
            return it.failure.cause
        case _:
            assert_never(it)


def saved_by_the_holder(files: FileRepository, it: Created) -> None:
    repository: EnvironmentRepository = files
    with repository.hold("demo", "create", timeout=0, interrupts=Interrupts(), new=True) as held:
        before: AnyEnvironment | None = held.load()
        held.save(before or it)
        held.at_step("render_tofu")
