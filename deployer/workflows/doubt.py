"""Whether OpenTofu's state can be trusted to say what exists, and the way out where it cannot. Runs nothing."""

from __future__ import annotations

import shlex

from deployer.environment import AnyEnvironment, DestroyFailed, Destroying, Resources
from deployer.errors import FailureKind, StepFailed
from deployer.storage.folder import EnvironmentFolder
from deployer.tofu.state import look


def doubt(folder: EnvironmentFolder, environment: AnyEnvironment) -> StepFailed | None:
    """Why "nothing is left" would be a guess, if it would. A destruction that has begun cannot have made anything."""
    name, known, state = environment.name, environment.resources, look(folder.tofu)
    may_go_on = known is Resources.POSSIBLE and not isinstance(environment, (Destroying, DestroyFailed))
    if state.errored is not None:
        return unpushed(folder)
    if state.condition == "damaged" or (state.condition in ("absent", "empty") and known is not Resources.NONE):
        problem = f"OpenTofu's state {folder.tofu / 'terraform.tfstate'} is {state.condition}"
    elif state.interrupted and may_go_on:
        problem = "OpenTofu was killed while it was making things, and may not have written down all of them"
    else:
        return None
    if may_go_on:
        way_out = f"deployer provision {name} --from-start    # takes up what was begun; then destroy knows all of it"
    elif (folder.tofu / "terraform.tfstate.backup").is_file():
        way_out = (
            f"cd {shlex.quote(str(folder.tofu))} && cp terraform.tfstate.backup terraform.tfstate && tofu state list"
            f"    # the state before the last change; if it has all: deployer destroy {name}"
        )
    else:
        way_out = f"deployer destroy {name} --abandon --yes    # but look at the provider first: is nothing there?"
    detail = "machines may exist that it does not know, so this is not called destroyed"
    return StepFailed(problem, kind=FailureKind.TOFU, detail=detail, help=way_out)


def unpushed(folder: EnvironmentFolder) -> StepFailed | None:
    """Where OpenTofu could not save its state: to go on from the older one would make everything a second time."""
    state = look(folder.tofu)
    if state.errored is None:
        return None
    # OpenTofu does not push over a file that it cannot read.
    aside = "mv terraform.tfstate terraform.tfstate.torn && " if state.condition in ("empty", "damaged") else ""
    push = f"cd {shlex.quote(str(folder.tofu))} && {aside}tofu state push errored.tfstate && rm errored.tfstate"
    problem = f"OpenTofu could not save its state and left it in {state.errored}"
    detail = "machines may exist that the older one does not know, so this is not called destroyed, nor planned anew"
    way_out = f"{push}    # then go on, or: deployer destroy {folder.name}"
    return StepFailed(problem, kind=FailureKind.TOFU, detail=detail, help=way_out)
