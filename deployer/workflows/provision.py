"""Provision: OpenTofu makes the machines, then they must let us in and finish cloud-init."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from deployer.bundled import bundled
from deployer.config.model import Machine, Spec
from deployer.environment import FinishedStep, Host, Provisioned, Provisioning, Resources
from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.events import Notice, utc_now
from deployer.files import write_private
from deployer.remote.readiness import wait_cloud_init, wait_ssh
from deployer.storage.folder import private_directory
from deployer.tofu.engine import Tofu
from deployer.tofu.module import VARIABLES, adopt, copy_module
from deployer.tofu.state import PLAN, look
from deployer.tofu.stream import Change, Plan
from deployer.workflows.advice import see_state_was_saved
from deployer.workflows.hosts import forget_replaced, private_key, public_key, read_hosts, targets
from deployer.workflows.run import Run, Session, Step


def provision(run: Run[Provisioning], spec: Spec, tofu: Tofu, planned: Plan | None = None) -> Provisioned:
    """From any state that may, to `provisioned`. `planned` is what a preview that still goes on has found: it, and no
    other, is applied then. Raises what the failed step raised, once that is saved."""
    session, folder = run.session, run.session.folder
    done: list[Change] = []  # by the apply

    def render_tofu() -> None:
        if not planned:  # else the preview has done it
            render(session, spec)

    def plan() -> str:
        see_state_was_saved(folder, state := look(folder.tofu))
        found = planned or tofu.plan(tofu.folder / PLAN)
        if run.environment.resources is Resources.NONE and state.condition == "remote":
            for address in found.known:
                problem = f"the backend's state has {address}, which this environment has not made"
                detail = "each environment needs a state of its own (docs/providers.md)"
                own = f"{folder.enter_tofu} && tofu destroy    # if it is this one's, and nobody else's"
                raise StepFailed(problem, kind=FailureKind.INPUT, detail=detail, help=own)
        return found.summary

    def forget_keys(now: Mapping[str, Host]) -> None:
        forget_replaced(run.environment.hosts, now, named(done, "create", tuple(spec.hosts)), folder.known_hosts)

    def apply() -> str:
        run.learn(run.environment.expect_resources(utc_now()))
        adopt(folder.tofu)  # what the preview has brought; until now, a destroy needed the other
        try:
            tofu.apply(tofu.folder / PLAN, done)
        except (StepFailed, Interrupted):
            with suppress(OSError, StepFailed):  # a machine may be new although another one failed: now or never
                forget_keys(run.environment.hosts)
            raise
        state = look(folder.tofu)
        exist = state.condition != "whole" or bool(state.resources)
        run.learn(run.environment.confirm_resources(utc_now(), exist=exist))
        return f"{len(done)} done"

    def read_outputs() -> str:
        given = tofu.outputs()
        hosts = read_hosts(given, spec)
        if others := ", ".join(sorted(given["hosts"].keys() - hosts.keys())):
            message = f"the module also has hosts that are not in the file, and so are not managed: {others}"
            session.context.report(Notice(message=message, level="warning"))
        forget_keys(hosts)
        run.learn(run.environment.found_hosts(hosts, utc_now()))
        return ", ".join(f"{name} at {host.address} port {host.port}" for name, host in hosts.items())

    def cloud_init() -> str:
        if spec.cloud_init is False:
            return "skipped: the file says cloud_init: false"
        hosts, limit = targets(run.environment, spec, folder), spec.timeouts.cloud_init
        strict, required = spec.cloud_init_strict, spec.provider.name != "existing"
        found = wait_cloud_init(hosts, limit, session.context, strict=strict, required=required)
        return ", ".join(f"{name} {outcome.outcome}" for name, outcome in found.items())

    steps: dict[str, Step] = {
        "render_tofu": render_tofu,
        "tofu_init": tofu.init,
        "tofu_validate": tofu.validate,
        "tofu_plan": plan,
        "tofu_apply": apply,
        "read_outputs": read_outputs,
        "wait_ssh": lambda: wait_ssh(targets(run.environment, spec, folder), spec.timeouts.ssh, session.context),
        "wait_cloud_init": cloud_init,
    }
    return run.conclude(steps, Provisioning.succeed)


def steps_to_keep(finished: tuple[FinishedStep, ...]) -> tuple[FinishedStep, ...]:
    """The finished steps a new run need not repeat where its plan is empty: all if OpenTofu has done its part, else
    none, as an apply that was cut short makes the saved plan stale."""
    return finished if any(step.name == "read_outputs" for step in finished) else ()


def module_of(spec: Spec) -> Path:
    """The folder with the provider's files."""
    return bundled("tofu") / spec.provider.name if spec.provider.name else Path(spec.provider.title)


def render(session: Session, spec: Spec) -> bool:
    """Writes the environment's root module: the provider's files and the input variables (docs/providers.md). Returns
    whether the files are others than before."""
    folder = session.folder
    private_directory(folder.tofu)
    private_directory(folder.known_hosts.parent)
    another = copy_module(module_of(spec), folder.tofu)
    public = public_key(private_key(spec, folder), folder, session.context)
    user_data = "" if spec.cloud_init is False else cloud_config(spec.ssh.user, public, spec.cloud_init)
    values = {
        "environment": spec.name,
        "hosts": {name: _host_variables(machine) for name, machine in spec.hosts.items()},
        "user_data": dict.fromkeys(spec.hosts, user_data),
        "ssh_public_key": public,
        **spec.provider.options,
    }
    write_private(folder.tofu / VARIABLES, values)
    return another


def _host_variables(machine: Machine) -> dict[str, object]:
    told = machine.model_dump(exclude={"ports", "groups", "options"}, exclude_none=True)
    ports = [{"host": here, "machine": there} for here, there in machine.forwards]
    return {**told, "ports": ports, **machine.options}


def cloud_config(user: str, public_key: str, extra: Mapping[str, Any]) -> str:
    """The text of a `#cloud-config` document (cloud-init's user-data format).

    `extra` is merged into ours: tables key by key, lists after ours, anything else in place of ours.
    """
    login = {"name": user, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": True}
    ours: dict[str, Any] = {"users": [{**login, "ssh_authorized_keys": [public_key]}], "ssh_pwauth": False}
    # Where an image has no locale, cloud-init's locale module fails (update-locale exits 255). Where the machine's name
    # cannot be resolved, every sudo says so.
    ours |= {"locale": False, "manage_etc_hosts": "localhost"}
    # ASCII only: PyYAML writes the rarer line ends of Unicode as they are, and they come back as spaces.
    return "#cloud-config\n" + yaml.safe_dump(merged(ours, extra), sort_keys=False)


def merged(ours: Any, theirs: Any) -> Any:
    """`theirs` merged into `ours`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return {**ours, **{key: merged(ours[key], value) if key in ours else value for key, value in theirs.items()}}
    if isinstance(ours, list) and isinstance(theirs, list):
        return [*ours, *theirs]
    return theirs


def named(done: Iterable[Change], action: str, hosts: tuple[str, ...]) -> set[str]:
    """The hosts whose machine was created or deleted, as far as addresses tell: those named as a key of a resource;
    where none is named, it may be any of them."""
    addresses = [change.address for change in done if change.action == action]
    found = {host for host in hosts if any(f'["{host}"]' in address for address in addresses)}
    return found or set(hosts if addresses else ())
