"""Configure: Ansible runs each playbook on the machines, in order, each a step of its own."""

import os
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from deployer.ansible.inventory import InventoryEnvironment, write_inventory
from deployer.ansible.playbook import PlaybookRun, kept_connections, run_playbook
from deployer.bundled import bundled
from deployer.config.model import Spec, is_path
from deployer.environment import Configured, Configuring, Environment, FinishedStep
from deployer.errors import FailureKind, StepFailed
from deployer.files import IF_MOVED, write_private
from deployer.storage.folder import EnvironmentFolder, private_directory
from deployer.workflows.hosts import private_key
from deployer.workflows.run import Run, Step


def configure(run: Run[Configuring], spec: Spec) -> Configured:
    """From `provisioned` or later to `configured`. Raises what the failed step raised, once that is saved."""
    session, folder = run.session, run.session.folder
    inventory, variables = folder.ansible / "inventory" / "hosts.json", folder.ansible / "variables.json"
    workspace = folder.ansible / "run"
    vault = spec.configure.vault_password_file
    sockets, kept = list[Path](), ExitStack()

    def render_inventory() -> None:
        if not (key := private_key(spec, folder)).is_file():  # Ansible would blame the machine
            raise StepFailed(f"the private key {key} is not there", kind=FailureKind.INPUT)
        shutil.rmtree(workspace, ignore_errors=True)  # of the command before
        private_directory(workspace)
        write_inventory(inventory, inventory_environment(run.environment, spec, folder))
        write_private(variables, spec.configure.variables)
        sockets.append(kept.enter_context(kept_connections(session.context.environ)))

    def play(step: str, entry: str) -> str:
        ours = not is_path(entry)
        playbook = (bundled("playbooks") / f"{entry}.yml" if ours else Path(entry)).absolute()
        if not playbook.is_file():
            way_out = "" if os.path.isfile(run.environment.file) else IF_MOVED
            raise StepFailed(f"the playbook {playbook} is not there", kind=FailureKind.INPUT, help=way_out)
        playing = PlaybookRun(
            step=step,
            playbook=playbook,
            inventory=inventory,
            variables=variables,
            workspace=workspace,
            project=None if ours else Path(run.environment.file).parent,
            vault_password_file=Path(vault) if vault else None,
            timeout=spec.timeouts.playbook,
            sockets=sockets[0],
        )
        return run_playbook(playing, session.context)

    playbooks: dict[str, Step] = {step: partial(play, step, entry) for step, entry in spec.playbook_steps.items()}
    with kept:
        return run.conclude({"render_inventory": render_inventory, **playbooks}, Configuring.succeed)


def steps_to_keep(finished: tuple[FinishedStep, ...]) -> tuple[FinishedStep, ...]:
    """The playbooks a new run need not repeat; the inventory is always written anew."""
    return tuple(step for step in finished if step.name != "render_inventory")


def inventory_environment(environment: Environment, spec: Spec, folder: EnvironmentFolder) -> InventoryEnvironment:
    """What Ansible must know of an environment's hosts."""
    return InventoryEnvironment(
        name=environment.name,
        hosts=environment.hosts,
        ports={name: tuple(there for _, there in machine.forwards) for name, machine in spec.hosts.items()},
        groups={name: machine.groups for name, machine in spec.hosts.items()},
        ssh_key=private_key(spec, folder),
        known_hosts=folder.known_hosts,
    )
