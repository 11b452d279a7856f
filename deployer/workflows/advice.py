"""What remains true of an environment, whether OpenTofu's state can be trusted to say so, and what to type next: for
errors, for `show`, and in RECOVERY.md. Runs nothing."""

import contextlib
import os
import shlex
from pathlib import Path

from deployer.environment import AnyEnvironment, ConfigureFailed, Destroyed, Resources, finished_steps
from deployer.errors import FailureKind, StepFailed, WrongState
from deployer.events import printable, utc_now
from deployer.files import write_atomically
from deployer.storage.folder import EnvironmentFolder
from deployer.tofu.state import LocalState, look


def what_exists(environment: AnyEnvironment, tofu: Path) -> str:
    """One sentence: what exists, or may."""
    hosts = ", ".join(f"{name} ({host.address} port {host.port})" for name, host in environment.hosts.items())
    match environment.resources:
        case Resources.NONE:
            return "No machine was made; its hosts were there before." if hosts else "Nothing exists."
        case Resources.PRESENT if hosts and _as_read(environment):
            return f"The machines were made: {hosts}."
        case Resources.PRESENT:
            before = f"; before this run they were {hosts}" if hosts else ""
            return f"Machines were made; what OpenTofu knows of them is in {tofu}{before}."
        case Resources.POSSIBLE:
            return f"Machines may exist; what OpenTofu knows of them is in {tofu}."


def _as_read(environment: AnyEnvironment) -> bool:
    """Whether nothing was made or taken away since the hosts on record were read from OpenTofu's outputs."""
    if environment.state in ("provisioning", "provision_failed"):
        return any(step.name == "read_outputs" for step in finished_steps(environment))
    return environment.state not in _TAKES_AWAY


_DOUBT = "machines may exist that {} does not know, so this is not called destroyed, nor planned anew"
_TAKES_AWAY = ("destroying", "destroy_failed")
_NOT_THE_PLAYBOOKS = (FailureKind.UNREACHABLE, FailureKind.TIMEOUT)
_NEXT = {
    "created": "up plan",
    "provisioning": "up logs destroy",
    "provision_failed": "up logs destroy",
    "provisioned": "configure ssh destroy",
    "configuring": "configure logs ssh destroy",
    "configure_failed": "configure logs ssh destroy",
    "configured": "ssh destroy",
    "destroying": "destroy logs",
    "destroy_failed": "destroy logs",
    "destroyed": "up",
}


def next_commands(environment: AnyEnvironment) -> tuple[str, ...]:
    """Commands to paste, the likeliest first. `environment` is at rest: nobody works on it."""
    commands = _NEXT[environment.state]
    if isinstance(environment, ConfigureFailed) and environment.failure.kind in _NOT_THE_PLAYBOOKS:
        commands = f"up {commands}"  # which sees to the machines first, and takes the file's limits
    return tuple(again(environment, command) for command in commands.split())


def again(environment: AnyEnvironment, command: str) -> str:
    """The command line for a command. `up` is given the file: who mends it must not type something else."""
    name = environment.name
    # A damaged state may spell the file as it likes. A destroyed one needs its file, even where that is gone.
    if command == "up" and (environment.state == "destroyed" or os.path.isfile(environment.file)):
        return f"deployer up {shlex.quote(environment.file)}"
    host = f" {next(iter(environment.hosts))}" if command == "ssh" and len(environment.hosts) > 1 else ""
    return f"deployer {command} {name}{host}"


def wrong_state(environment: AnyEnvironment, command: str, why: str, help_: str) -> WrongState:
    message = f"environment {environment.name} is {environment.state}: {command} cannot start from there"
    return WrongState(message, detail=why, help=help_)


def being_destroyed(environment: AnyEnvironment, command: str) -> WrongState:
    """For a command that would make or plan something."""
    destroyed = isinstance(environment, Destroyed)
    why = "it is destroyed, and can be created anew" if destroyed else "its destruction must be finished first"
    return wrong_state(environment, command, why, next_commands(environment)[0])


def see_all_is_known(folder: EnvironmentFolder, environment: AnyEnvironment, *, destroys: bool) -> None:
    """Raises StepFailed, with the way out, where OpenTofu's state is lost; for a destroy also where an apply was cut
    short: "nothing is left" would be a guess."""
    remains = f"The environment {environment.name} stays {environment.state}, and everything in its place."
    name, known, state = environment.name, environment.resources, look(folder.tofu)
    see_state_was_saved(folder, state, remains)
    # A destruction that has begun cannot have made anything.
    may_go_on = known is not Resources.NONE and environment.state not in _TAKES_AWAY
    lost = state.condition == "damaged" or (state.condition in ("absent", "empty") and known is not Resources.NONE)
    if not lost and not (destroys and state.interrupted and may_go_on):
        return
    problem = "OpenTofu was cut short (killed, or a full disk) and may not have written down all that it made"
    if lost:
        problem = f"OpenTofu's state {folder.tofu / 'terraform.tfstate'} is {state.condition}"
    if may_go_on and (not lost or known is Resources.POSSIBLE):
        way_out = f"deployer provision {name} --from-start    # takes up what was begun; then destroy knows all of it"
    elif (folder.tofu / "terraform.tfstate.backup").is_file():
        way_out = f"{folder.enter_tofu} && cp terraform.tfstate.backup terraform.tfstate && tofu state list"
        way_out += f"    # the state before the last change; if it has all: deployer destroy {name}"
    else:
        way_out = f"deployer show {name} --refresh    # look there and at the provider. Only if nothing is left: "
        way_out += f"deployer destroy {name} --abandon --yes"
    raise StepFailed(problem, kind=FailureKind.TOFU, detail=_DOUBT.format("it"), remains=remains, help=way_out)


def see_state_was_saved(folder: EnvironmentFolder, state: LocalState, remains: str = "") -> None:
    """Raises StepFailed where OpenTofu could not save its state: to go on from the older one would make everything a
    second time."""
    if state.errored is None:
        return
    # OpenTofu does not push over a file that it cannot read.
    aside = "mv terraform.tfstate terraform.tfstate.torn && " if state.condition in ("empty", "damaged") else ""
    way_out = f"{folder.enter_tofu} && {aside}tofu state push errored.tfstate && rm errored.tfstate"
    way_out += f"    # then go on, or: deployer destroy {folder.name}"
    problem = f"OpenTofu could not save its state and left it in {state.errored}"
    detail = _DOUBT.format("the older one")
    raise StepFailed(problem, kind=FailureKind.TOFU, detail=detail, remains=remains, help=way_out)


def write_recovery(folder: EnvironmentFolder, environment: AnyEnvironment, cause: str, log: str, tofu: str) -> None:
    """Writes RECOVERY.md: what failed, what exists, and the commands to go on, to destroy, and to see that nothing is
    left. Removes it where nothing failed. Never raises: it is a help, and the state file already says the same.

    `tofu` is what is typed for OpenTofu."""
    with contextlib.suppress(OSError):
        folder.recovery.unlink(missing_ok=True)
        if cause:
            write_atomically(folder.recovery, _page(folder, environment, cause, log, tofu).encode())


def _page(folder: EnvironmentFolder, environment: AnyEnvironment, cause: str, log: str, tofu: str) -> str:
    """The page as Markdown. Names and causes come from files and children: they are shown, never part of a command."""
    name, here = environment.name, folder.enter_tofu
    deployer = f"deployer --home {shlex.quote(str(folder.root.parent.parent))}"
    # Addresses and ids out of OpenTofu's own state; nothing else of it, since the rest may be secret.
    state = look(folder.tofu)
    known = [f"- {_quoted(address)} id {_quoted(id_)}" for address, id_ in state.resources.items()]
    unknown = "what its backend tells (see below)" if state.condition == "remote" else "nothing"
    parts = [
        f"# Environment {name} is {environment.state}",
        f"Written {utc_now():%Y-%m-%d %H:%M:%S} UTC, after: {_quoted(cause)}",
        f"{what_exists(environment, folder.tofu)} The log of that run is {_quoted(log)}.",
        "## What OpenTofu knows to exist",
        "\n".join(known) or f"- {unknown}, as far as its state can be read",
        "## To look",
        _block(f"{deployer} show {name}", f"{deployer} logs {name}"),
        "## To go on",
        _block(next_commands(environment)[0].replace("deployer", deployer, 1)),
        "## To take everything away",
        _block(f"{deployer} destroy {name} --yes"),
    ]
    # Otherwise there may be no folder yet, or none that OpenTofu can read.
    if environment.resources is not Resources.NONE:
        parts += [
            "Without deployer:",
            _block(here, f"{tofu} init -input=false", f"{tofu} destroy -auto-approve"),
            "## To see that nothing is left",
            _block(here, f"{tofu} state list    # prints nothing"),
        ]
    return "\n\n".join(parts) + "\n"


def _block(*commands: str) -> str:
    return "\n".join(["```sh", *commands, "```"])


def _quoted(text: str) -> str:
    return "`" + printable(text).replace("`", "'").replace("\n", " ") + "`"
