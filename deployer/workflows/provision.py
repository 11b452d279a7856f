"""Provision: OpenTofu makes the machines, then they must let us in and finish cloud-init."""

from __future__ import annotations

import re
from pathlib import Path

from deployer.bundled import bundled
from deployer.config.loading import located
from deployer.config.model import Spec
from deployer.environment import FinishedStep, Provisioned, Provisioning
from deployer.events import utc_now
from deployer.remote import wait_cloud_init, wait_ssh
from deployer.storage.folder import EnvironmentFolder, private_directory
from deployer.tofu.engine import Tofu
from deployer.tofu.module import copy_module, module_differs, write_variables
from deployer.tofu.state import look
from deployer.tofu.stream import Change, Plan
from deployer.workflows.cloud_config import cloud_config
from deployer.workflows.doubt import unpushed
from deployer.workflows.hosts import forget_replaced, read_hosts, targets
from deployer.workflows.keys import private_key, public_key
from deployer.workflows.run import Run, Session

STEPS = (
    "render_tofu",
    "tofu_init",
    "tofu_validate",
    "tofu_plan",
    "tofu_apply",
    "read_outputs",
    "wait_ssh",
    "wait_cloud_init",
)
PLAN_FILE = "deployer.tfplan"


def provision(run: Run[Provisioning], spec: Spec, tofu: Tofu) -> Provisioned:
    """From any state that may, to `provisioned`. Raises what the failed step raised, once that is saved."""
    machines = _Provision(run, spec, tofu)

    def story() -> None:
        run.step("render_tofu", machines.render)
        run.step("tofu_init", tofu.init)
        run.step("tofu_validate", tofu.validate)
        run.step("tofu_plan", machines.plan)
        run.step("tofu_apply", machines.apply)
        run.step("read_outputs", machines.read_outputs)
        run.step("wait_ssh", machines.wait_ssh)
        run.step("wait_cloud_init", machines.wait_cloud_init)

    return run.conclude(story, lambda environment: environment.succeed(utc_now()))


def steps_to_keep(
    finished: tuple[FinishedStep, ...], spec: Spec, directory: Path, folder: EnvironmentFolder
) -> tuple[FinishedStep, ...]:
    """The finished steps a new run need not repeat: all where OpenTofu has done its part, otherwise none. What failed
    may have been mended in the module, and an apply that was cut short makes the saved plan stale."""
    source = module_of(spec, directory)
    if "read_outputs" not in (step.name for step in finished) or (
        source.is_dir() and module_differs(source, folder.tofu)
    ):
        return ()
    return finished


def module_of(spec: Spec, directory: Path) -> Path:
    """The folder with the provider's files."""
    return bundled("tofu") / spec.provider.name if spec.provider.name else located(directory, str(spec.provider.path))


def render(session: Session, spec: Spec, directory: Path) -> bool:
    """Writes the environment's root module: the provider's files and the input variables (docs/providers.md). Returns
    whether the files are others than before."""
    folder = session.folder
    private_directory(folder.tofu)
    another = copy_module(module_of(spec, directory), folder.tofu)
    key = private_key(spec, directory, folder)
    public = public_key(key, folder, environ=session.environ, interrupts=session.interrupts)
    user_data = "" if spec.cloud_init is False else cloud_config(spec.ssh.user, public, spec.cloud_init)
    required = {
        "environment": spec.name,
        "hosts": {name: _host_variables(spec, name) for name in spec.hosts},
        "user_data": dict.fromkeys(spec.hosts, user_data),
        "ssh_public_key": public,
        **spec.provider.options,
    }
    write_variables(folder.tofu, required, {"ssh_user": spec.ssh.user})
    return another


def _host_variables(spec: Spec, name: str) -> dict[str, object]:
    machine = spec.hosts[name]
    told = {"address": machine.address, "port": machine.port, "user": machine.user}
    return {
        "cpus": machine.cpus,
        "memory": machine.memory,
        "disk": machine.disk,
        "ports": [forward._asdict() for forward in machine.forwards],
        **{key: value for key, value in told.items() if value is not None},
        **machine.options,
    }


class _Provision:
    """The steps' work, with what one hands to the next."""

    def __init__(self, run: Run[Provisioning], spec: Spec, tofu: Tofu) -> None:
        self._run, self._spec, self._tofu = run, spec, tofu
        self._folder: EnvironmentFolder = run.session.folder
        self._replaced: set[str] = set()
        self._planned = Plan()

    @property
    def _key(self) -> Path:
        return private_key(self._spec, Path(self._run.environment.directory), self._folder)

    def render(self) -> None:
        render(self._run.session, self._spec, Path(self._run.environment.directory))

    def plan(self) -> str:
        if (problem := unpushed(self._folder, self._run.environment.name)) is not None:
            raise problem
        self._planned = self._tofu.plan(self._folder.tofu / PLAN_FILE)
        return self._planned.summary

    def apply(self) -> str:
        run = self._run
        run.learn(run.environment.expect_resources(utc_now()))
        plan = self._folder.tofu / PLAN_FILE
        done = self._tofu.apply(plan)
        plan.unlink(missing_ok=True)  # it holds every variable's value, and is stale from now on
        self._replaced = _made(done, tuple(self._spec.hosts))
        state = look(self._folder.tofu)
        run.learn(
            run.environment.confirm_resources(utc_now(), exist=state.condition != "whole" or bool(state.resources))
        )
        return f"{len(done)} done"

    def read_outputs(self) -> str:
        run = self._run
        hosts = read_hosts(self._tofu.outputs(), self._spec)
        forget_replaced(run.environment.hosts, hosts, self._replaced, self._folder.known_hosts)
        run.learn(run.environment.found_hosts(hosts, utc_now()))
        return ", ".join(f"{name} at {host.address} port {host.port}" for name, host in hosts.items())

    def wait_ssh(self) -> None:
        session = self._run.session
        private_directory(self._folder.known_hosts.parent)  # with a key of the user's own nothing else makes it
        wait_ssh(
            targets(self._run.environment.hosts, self._folder, self._key),
            limit=self._spec.timeouts.ssh,
            interrupts=session.interrupts,
            report=self._run.report,
        )

    def wait_cloud_init(self) -> str:
        spec, session = self._spec, self._run.session
        if spec.cloud_init is False:
            return "skipped: the file says cloud_init: false"
        existing = spec.provider.name == "existing"
        found = wait_cloud_init(
            targets(self._run.environment.hosts, self._folder, self._key),
            limit=spec.timeouts.cloud_init,
            strict=spec.cloud_init_strict,
            required=not existing,
            interrupts=session.interrupts,
            report=self._run.report,
        )
        return ", ".join(f"{name} {outcome.outcome}" for name, outcome in found.items())


def _made(done: tuple[Change, ...], hosts: tuple[str, ...]) -> set[str]:
    """The hosts whose machine an apply made anew, as far as addresses tell: those named as a key of a created resource;
    a created resource that names no host may stand for any of them."""
    created = [change.address for change in done if change.action == "create"]
    keys = [set(re.findall(r'\["([^"]+)"\]', address)) & set(hosts) for address in created]
    return set(hosts) if any(not named for named in keys) else {host for named in keys for host in named}
