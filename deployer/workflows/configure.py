"""Configure: Ansible runs each playbook on the machines, in order, each a step of its own."""

from __future__ import annotations

from pathlib import Path

from deployer.ansible import (
    InventoryEnvironment,
    PlaybookRun,
    close_connections,
    run_playbook,
    write_inventory,
    write_variables,
)
from deployer.bundled import bundled
from deployer.config.loading import located
from deployer.config.model import Spec, is_path
from deployer.environment import Configured, Configuring, Environment, FinishedStep
from deployer.errors import FailureKind, StepFailed
from deployer.events import utc_now
from deployer.storage.folder import EnvironmentFolder, private_directory
from deployer.workflows.keys import private_key
from deployer.workflows.run import Run


def steps(spec: Spec) -> tuple[str, ...]:
    return ("render_inventory", *spec.playbook_steps)


def configure(run: Run[Configuring], spec: Spec) -> Configured:
    """From `provisioned` or later to `configured`. Raises what the failed step raised, once that is saved."""
    work = _Configure(run, spec)

    def story() -> None:
        run.step("render_inventory", work.render_inventory)
        try:
            for step, entry in spec.playbook_steps.items():
                run.step(step, lambda step=step, entry=entry: work.play(step, entry))  # type: ignore[misc]
        finally:
            work.close()

    return run.conclude(story, lambda environment: environment.succeed(utc_now()))


def steps_to_keep(finished: tuple[FinishedStep, ...]) -> tuple[FinishedStep, ...]:
    """The playbooks a new run need not repeat; the inventory is always written anew."""
    return tuple(step for step in finished if step.name != "render_inventory")


def inventory_environment(environment: Environment, spec: Spec, folder: EnvironmentFolder) -> InventoryEnvironment:
    """What Ansible must know of an environment's hosts."""
    return InventoryEnvironment(
        name=environment.name,
        hosts=environment.hosts,
        ports={name: tuple(f.machine for f in machine.forwards) for name, machine in spec.hosts.items()},
        ssh_key=private_key(spec, Path(environment.directory), folder),
        known_hosts=folder.known_hosts,
    )


class _Configure:
    def __init__(self, run: Run[Configuring], spec: Spec) -> None:
        self._run, self._spec = run, spec
        self._folder = run.session.folder
        self._directory = Path(run.environment.directory)
        self._inventory = self._folder.ansible / "inventory" / "hosts.json"
        self._variables = self._folder.ansible / "variables.json"
        self._workspace = self._folder.ansible / "runs" / run.session.run_id

    def render_inventory(self) -> None:
        private_directory(self._inventory.parent)
        private_directory(self._workspace.parent)
        write_inventory(self._inventory, inventory_environment(self._run.environment, self._spec, self._folder))
        write_variables(self._variables, self._spec.configure.variables)

    def play(self, step: str, entry: str) -> str:
        playbook = located(self._directory, entry) if is_path(entry) else bundled("playbooks") / f"{entry}.yml"
        if not playbook.is_file():
            raise StepFailed(
                f"the playbook {entry} is not there", kind=FailureKind.INPUT, detail=f"looked for {playbook.absolute()}"
            )
        vault = self._spec.configure.vault_password_file
        recap = run_playbook(
            PlaybookRun(
                step=step,
                playbook=playbook.absolute(),
                inventory=self._inventory,
                variables=self._variables,
                workspace=self._workspace,
                project=self._directory,
                vault_password_file=located(self._directory, vault) if vault else None,
                timeout=self._spec.timeouts.playbook,
                ssh_key=private_key(self._spec, self._directory, self._folder),
                known_hosts=self._folder.known_hosts,
            ),
            interrupts=self._run.session.interrupts,
            register=self._run.session.held,
            report=self._run.report,
        )
        return recap.text

    def close(self) -> None:
        close_connections(self._workspace)
