"""Destroy: OpenTofu takes everything away, and only when it has said so are our own files cleaned up."""

from __future__ import annotations

import shutil

from deployer.environment import Destroyed, Destroying, Resources
from deployer.events import utc_now
from deployer.storage.folder import EnvironmentFolder
from deployer.tofu.engine import Tofu
from deployer.tofu.state import look
from deployer.workflows.doubt import doubt
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
    problem = doubt(run.session.folder, run.environment)
    if problem is not None:
        raise problem
    # An empty state of what was once there is given to OpenTofu too: it is the one to say that nothing is left.
    state = look(run.session.folder.tofu)
    return state.condition == "remote" or bool(state.resources) or run.environment.resources is not Resources.NONE
