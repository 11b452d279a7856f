"""Destroy: OpenTofu takes everything away, and only when it has said so are our own files cleaned up."""

from __future__ import annotations

import shlex
import shutil

from deployer.environment import Destroyed, Destroying, Resources
from deployer.errors import FailureKind, StepFailed
from deployer.events import utc_now
from deployer.storage.folder import EnvironmentFolder
from deployer.tofu.engine import Tofu
from deployer.tofu.state import look
from deployer.workflows.run import Run

STEPS = ("tofu_destroy", "clean_up")


def destroy(run: Run[Destroying], tofu: Tofu | None, *, abandon: bool = False) -> Destroyed:
    """From any state but `destroyed` to `destroyed`. `abandon` takes the user's word that nothing exists any more;
    without it, a lost or doubtful OpenTofu state fails the step rather than being called "nothing to do"."""

    def tofu_destroy() -> str:
        if abandon:
            run.notice("OpenTofu was not asked: the user says that nothing exists any more", "warning")
            note = "abandoned"
        elif tofu is not None and _something_to_destroy(run):
            if not (tofu.folder / ".terraform").exists():
                tofu.init()
            note = f"{len(tofu.destroy())} destroyed"
        else:
            note = "nothing was made"
        run.learn(run.environment.resources_gone(utc_now()))
        return note

    def story() -> None:
        run.step("tofu_destroy", tofu_destroy)
        run.step("clean_up", lambda: clean_up(run.session.folder))

    return run.conclude(story, lambda environment: environment.succeed(utc_now()))


def clean_up(folder: EnvironmentFolder) -> None:
    """Removes what only served machines that are gone. The state, the events and the logs stay. Raises OSError."""
    for path in (folder.tofu, folder.ansible, folder.private_key.parent):
        if path.exists():
            shutil.rmtree(path)
    folder.recovery.unlink(missing_ok=True)


def _something_to_destroy(run: Run[Destroying]) -> bool:
    """Whether OpenTofu has work. Raises StepFailed where its state cannot be trusted to say what exists."""
    folder = run.session.folder
    state = look(folder.tofu)
    expected = run.environment.resources
    name = run.environment.name
    if state.errored is not None:
        raise _doubt(
            run,
            f"OpenTofu could not save its state and left it in {state.errored}",
            f"cd {shlex.quote(str(folder.tofu))} && tofu state push errored.tfstate && rm errored.tfstate"
            f"    # then: deployer destroy {name}",
        )
    if state.condition == "damaged" or (state.condition in ("absent", "empty") and expected is not Resources.NONE):
        raise _doubt(run, f"OpenTofu's state {folder.tofu / 'terraform.tfstate'} is {_CONDITIONS[state.condition]}")
    if state.interrupted and expected is Resources.POSSIBLE:
        raise _doubt(run, "OpenTofu was killed while it was making things, and may not have written down all of them")
    # An empty state of what was once there is given to OpenTofu too: it is the one to say that nothing is left.
    return state.condition == "remote" or bool(state.resources) or expected is not Resources.NONE


_CONDITIONS = {"damaged": "damaged", "absent": "not there", "empty": "empty, as a kill or a power cut can leave it"}


def _doubt(run: Run[Destroying], problem: str, help_: str = "") -> StepFailed:
    name = run.environment.name
    return StepFailed(
        problem,
        kind=FailureKind.TOFU,
        detail="machines may exist that it does not know, so this is not called destroyed",
        remains=f"A backup may be beside it: {run.session.folder.tofu / 'terraform.tfstate.backup'}.",
        help=help_
        or f"deployer provision {name} --from-start    # takes up what was begun; then destroy. "
        f"Or look at the provider yourself and, when nothing is there: deployer destroy {name} --abandon --yes",
    )
