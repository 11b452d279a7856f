"""Destroy: OpenTofu takes everything away, and only when it has said so are our own files cleaned up."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from deployer.config.model import Spec
from deployer.environment import Destroyed, Destroying, Resources
from deployer.errors import FailureKind, StepFailed
from deployer.events import utc_now
from deployer.storage.folder import EnvironmentFolder
from deployer.tofu.engine import Tofu
from deployer.tofu.state import look
from deployer.tofu.stream import Change
from deployer.workflows.doubt import doubt
from deployer.workflows.provision import render
from deployer.workflows.run import Run

STEPS = ("tofu_destroy", "clean_up")


def destroy(run: Run[Destroying], tofu: Tofu | None, spec: Spec, *, abandon: bool = False) -> Destroyed:
    """From any state but `destroyed` to `destroyed`. `abandon` takes the user's word that nothing exists any more;
    without it, a lost or doubtful OpenTofu state fails the step rather than being called "nothing to do"."""

    def tofu_destroy() -> str:
        if abandon:
            run.notice("OpenTofu was not asked: the user says that nothing exists any more", "warning")
            note = "abandoned"
        elif tofu is not None and _something_to_destroy(run):
            gone = _take_away(run, tofu, spec)
            if not gone:
                _see_nobody_answers(run)
            note = f"{len(gone)} destroyed"
        else:
            note = "nothing was made"
        run.learn(run.environment.resources_gone(utc_now()))
        return note

    def story() -> None:
        run.step("tofu_destroy", tofu_destroy)
        run.step("clean_up", lambda: clean_up(run.session.folder))

    return run.conclude(story, lambda environment: environment.succeed(utc_now()))


def _take_away(run: Run[Destroying], tofu: Tofu, spec: Spec) -> tuple[Change, ...]:
    try:
        if not (tofu.folder / ".terraform").exists():
            tofu.init()
        return tofu.destroy()
    except StepFailed as failure:
        # A change that failed before its apply may have left what OpenTofu cannot even plan with, module or values.
        # Who has mended the module since must not have to mend our copy of it as well.
        if _plans(tofu):
            raise
        try:
            render(run.session, spec, Path(run.environment.directory))
        except (StepFailed, OSError):
            raise failure from None
        run.notice(f"OpenTofu cannot plan with what is in {tofu.folder}; the module is copied anew", "warning")
        tofu.init()
        return tofu.destroy()


def _plans(tofu: Tofu) -> bool:
    try:
        tofu.plan(lock=False)
    except StepFailed:
        return False
    return True


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


def _see_nobody_answers(run: Run[Destroying]) -> None:
    """Raises StepFailed where OpenTofu knew of nothing to take away, and yet a machine on record answers: its state was
    lost and written anew, or the machine was taken out of it."""
    name = run.environment.name
    for host_name, host in run.environment.hosts.items():
        try:
            socket.create_connection((host.address, host.port), timeout=3).close()
        except OSError:
            continue
        raise StepFailed(
            f"{host_name} still answers at {host.address} port {host.port}, but OpenTofu knew of nothing to destroy",
            kind=FailureKind.TOFU,
            detail="its state has lost the machine, so this is not called destroyed",
            help=f"deployer destroy {name} --abandon --yes    # but remove the machine at its provider first",
        )
