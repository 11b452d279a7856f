"""Destroy: OpenTofu takes everything away, and only when it has said so are our own files cleaned up."""

import shutil
from contextlib import suppress

from deployer.config.model import Spec
from deployer.environment import AnyEnvironment, Destroyed, Destroying, Resources
from deployer.errors import FailureKind, StepFailed
from deployer.events import Notice, utc_now
from deployer.remote.ssh import Answering, who_answers
from deployer.storage.folder import EnvironmentFolder
from deployer.tofu.engine import Tofu
from deployer.tofu.module import adopt, lost_files, module_differs
from deployer.tofu.state import look
from deployer.tofu.stream import Change
from deployer.workflows.hosts import targets
from deployer.workflows.provision import module_of, named
from deployer.workflows.review import preview
from deployer.workflows.run import Run


def something_to_destroy(environment: AnyEnvironment, folder: EnvironmentFolder) -> bool:
    """Whether OpenTofu has work. An empty state of what was once there is given to it too: it is the one to say that
    nothing is left. What a backend holds is another environment's, as long as this one has made nothing."""
    state = look(folder.tofu)
    return environment.resources is not Resources.NONE or state.condition == "encrypted" or bool(state.resources)


def destroy(run: Run[Destroying], tofu: Tofu | None, spec: Spec, *, again: bool) -> Destroyed:
    """From any state but `destroyed` to `destroyed`; `tofu` where OpenTofu is to be asked, `again` where an earlier run
    may have taken something away."""

    def tofu_destroy() -> str:
        came_of_it = _take_away(run, tofu, spec, again) if tofu else "OpenTofu was not asked"
        run.learn(run.environment.resources_gone(utc_now()))
        return came_of_it

    def clean_up() -> None:
        """Removes what only served machines that are gone. The state, the events and the logs stay."""
        folder = run.session.folder
        for path in (folder.tofu, folder.ansible, folder.private_key.parent):
            if path.exists():
                shutil.rmtree(path)

    return run.conclude({"tofu_destroy": tofu_destroy, "clean_up": clean_up}, Destroying.succeed)


def _take_away(run: Run[Destroying], tofu: Tofu, spec: Spec, again: bool) -> str:
    try:
        gone = _destroyed(tofu)
    except StepFailed as error:
        if error.kind is not FailureKind.TOFU or error.help:  # what has advice of its own is no matter of the module's
            raise
        error.help = f"deployer destroy {spec.name}    # when it is mended; the module that counts is in {tofu.folder}"
        if not _mended(run, tofu, spec):
            raise
        run.session.context.report(Notice(message=f"{error}; once more with the module as it is now", level="warning"))
        again, gone = True, tofu.destroy()
    if left := ", ".join(look(tofu.folder).resources):
        raise StepFailed(f"OpenTofu has ended, and still knows {left}", kind=FailureKind.TOFU)
    if spec.provider.name != "existing":  # whose machines are to answer afterwards
        # What an earlier run has taken away may have its port in use by another.
        sure: tuple[Answering, ...] = ("ours",) if gone and again else ("ours", "unknown")
        _see_nobody_answers(run, spec, named(gone, "delete", tuple(run.environment.hosts)), sure)
    return f"{len(gone)} destroyed"


def _destroyed(tofu: Tofu) -> tuple[Change, ...]:
    if lost := ", ".join(lost_files(tofu.folder)):
        raise StepFailed(f"the module in {tofu.folder} has lost {lost}", kind=FailureKind.TOFU)
    if not (tofu.folder / ".terraform").exists() or not tofu.is_valid():  # its notes may be of another module
        tofu.init()
    return tofu.destroy()


def _mended(run: Run[Destroying], tofu: Tofu, spec: Spec) -> bool:
    """Whether the module is another one by now, and taken over. Not where it lacks something that exists, which would
    go without its destroy-time provisioners."""
    if not module_differs(module_of(spec), tofu.folder):
        return False
    with suppress(StepFailed), preview(run.session, spec, tofu, f"deployer destroy {spec.name}") as plan:
        if not any(change.action == "delete" for change in plan.changes):
            adopt(tofu.folder)
            return True
    return False


def _see_nobody_answers(run: Run[Destroying], spec: Spec, gone: set[str], sure: tuple[Answering, ...]) -> None:
    """Raises StepFailed where OpenTofu knew of nothing to take away that bears a host's name, and yet it answers: its
    state was lost and written anew, or the machine was taken out of it. What shows another host key only has its
    address, and so has what answers where one was that is `gone`; `sure` are the answers that count."""
    asked = targets(run.environment, spec, run.session.folder)
    free = {(target.address, target.port) for target in asked if target.name in gone}
    for target in asked:
        if (target.address, target.port) not in free and who_answers(target, run.session.context)[0] in sure:
            where = f"{target.address} port {target.port}"
            problem = f"{target.name} still answers at {where}, but OpenTofu knew of nothing of it to destroy"
            detail = "its state may have lost the machine, so this is not called destroyed"
            way_out = f"deployer show {run.environment.name} --refresh    # once the machine itself is gone: "
            way_out += f"deployer destroy {run.environment.name} --abandon --yes"
            raise StepFailed(problem, kind=FailureKind.TOFU, detail=detail, help=way_out)
