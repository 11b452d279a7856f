"""Before a run: OpenTofu plans, and where something exists, what would be done with it is shown, and asked. That very
plan is what the run applies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from shlex import quote

from deployer import environment as states
from deployer.config.loading import spec_changes
from deployer.config.model import LoadedSpec, Provider, Spec
from deployer.environment import AnyEnvironment, FinishedStep, Provisioning, finished_steps
from deployer.errors import Declined, Interrupted, StepFailed
from deployer.events import Notice, utc_now
from deployer.remote.readiness import wait_ssh
from deployer.storage.folder import storage_failed
from deployer.tofu.engine import Tofu
from deployer.tofu.module import adopt, module_kept
from deployer.tofu.state import PLAN, look
from deployer.tofu.stream import Plan
from deployer.workflows.advice import wrong_state
from deployer.workflows.hosts import read_hosts, targets
from deployer.workflows.provision import provision, render, steps_to_keep
from deployer.workflows.run import Run, Session

_GRACE = 60  # seconds, for a host that is just being started again; an emulated one takes half of it to log in


@dataclass(frozen=True)
class Changes:
    """What a changed file or a changed reality would bring: lines on the file, and OpenTofu's plan."""

    environment: str
    spec: tuple[str, ...]
    plan: Plan


Confirm = Callable[[Changes], bool] | None  # None: nobody is asked


def see_provider_stays(session: Session, before: AnyEnvironment, made_by: Provider, wanted: LoadedSpec) -> None:
    """Raises WrongState where another provider than `made_by` would be asked to change what exists."""
    if _remakes(before, wanted) and made_by.name != wanted.spec.provider.name:
        why = f"the provider would change: {made_by.title} made the machines, and it alone knows how to remove them"
        raise wrong_state(before, session.command, why, f"deployer destroy {before.name}    # and then up")


def provision_reviewed(
    session: Session,
    before: states.AnyProvisionable,
    wanted: LoadedSpec,
    tofu: Tofu,
    *,
    from_start: bool,
    confirm: Confirm,
) -> AnyEnvironment:
    """Makes what is `wanted`, going on where an earlier run stopped; a settled environment with nothing to change stays
    as it is. Raises Declined, and what `provision` raises."""
    spec, file, changed = wanted.spec, str(wanted.file), before.spec != wanted.data
    resumes = isinstance(before, states.Provisioning | states.ProvisionFailed) and not changed and not from_start
    done = steps_to_keep(finished_steps(before)) if resumes else ()

    def run(done: tuple[FinishedStep, ...]) -> Run[Provisioning]:
        started = before.start_provision(session.run_id, utc_now(), spec=wanted.data, file=file, done=done)
        return Run(session, before, started)

    made = before.resources != "none" or look(tofu.folder).resources  # the latter by hand
    if not made and not done and not isinstance(before, states.Configurable):
        return provision(run(()), spec, tofu)
    with preview(session, spec, tofu, retry(session, before, wanted)) as plan:
        nothing = not changed and plan.empty
        if nothing:
            adopt(tofu.folder)  # what makes no difference now may when they are destroyed
        goes_by_record = bool(done) or (isinstance(before, states.Configurable) and not from_start)
        holds = nothing and goes_by_record and _addresses_hold(before, spec, tofu)
        if holds and isinstance(before, states.Configurable):
            _leave(session, before, spec)
            return before if before.file == file else session.keep(before.moved(file, utc_now()), before)
        # Otherwise what went wrong half-way is brought to its end, and nothing that works is lost by it.
        asks = not nothing and (_remakes(before, wanted) or plan.risky or isinstance(before, states.Configurable))
        if confirm is not None and asks and not confirm(changes(before, wanted, plan)):
            raise Declined("the changes were not confirmed", help=f"deployer show {before.name}")
        done = done if holds else ()  # a machine may have died, or moved, while it was waited for
        return provision(run(done), spec, tofu, plan)


def retry(session: Session, before: AnyEnvironment, wanted: LoadedSpec) -> str:
    """What to type once more: the file, where it says what is not accepted yet."""
    return f"deployer {session.command} {before.name if before.spec == wanted.data else quote(str(wanted.file))}"


def _remakes(before: AnyEnvironment, wanted: LoadedSpec) -> bool:
    # A new one beside machines has lost its state.
    return before.resources != "none" and (before.spec != wanted.data or isinstance(before, states.Created))


def changes(before: AnyEnvironment, wanted: LoadedSpec, plan: Plan) -> Changes:
    found = spec_changes(before.spec, wanted.data)
    if found and before.file != str(wanted.file):
        found = (f"file: {before.file} -> {wanted.file}", *found)
    return Changes(before.name, found, plan)


def _addresses_hold(environment: AnyEnvironment, spec: Spec, tofu: Tofu) -> bool:
    """Whether the hosts on record are those that OpenTofu gives: somebody may have applied by hand."""
    with suppress(StepFailed):  # the step that reads them says why
        return read_hosts(tofu.outputs(), spec) == environment.hosts
    return False


def _leave(session: Session, environment: AnyEnvironment, spec: Spec) -> None:
    """Sees that every host lets us in, and says that there is nothing to do. Raises StepFailed."""
    try:
        wait_ssh(targets(environment, spec, session.folder), min(spec.timeouts.ssh, _GRACE), session.context)
    except StepFailed as error:
        error.message = f"environment {environment.name}: {error.message}"
        error.remains = f"Its state stays {environment.state}, and OpenTofu has nothing to do."
        anew = f"    # lost for good: {session.folder.enter_tofu} && tofu state list && tofu taint ADDRESS; then up"
        look_again = f"deployer show {environment.name} --refresh"
        error.help = error.help or look_again + (anew if environment.resources != "none" else "")
        raise
    message = "OpenTofu has nothing to do, and every host lets us in"
    if isinstance(environment, states.Configured):
        message = f"environment {environment.name} is up to date: OpenTofu has nothing to do"
        message += f"; to run its playbooks again: deployer configure {environment.name}"
    session.context.report(Notice(message=message))


@contextmanager
def preview(session: Session, spec: Spec, tofu: Tofu, again: str) -> Iterator[Plan]:
    """What an apply would do now; `again` is what to type where that cannot be told. While the block runs, the tofu
    folder holds the module as it is now, and that plan: in the end what its machines were made with, if nobody has
    adopted the other."""
    try:
        with module_kept(tofu.folder, tofu.init):
            yield _preview(session, spec, tofu, again)
    except OSError as error:
        raise storage_failed("cannot write", tofu.folder, error) from error
    except StepFailed as error:
        error.log = error.log or str(session.log)
        raise
    finally:
        with suppress(OSError):
            (tofu.folder / PLAN).unlink()  # every variable's value is in it


def _preview(session: Session, spec: Spec, tofu: Tofu, again: str) -> Plan:
    try:
        if not render(session, spec) and (tofu.folder / ".terraform").exists():
            try:
                return tofu.plan(tofu.folder / PLAN)
            except StepFailed:
                if tofu.is_valid():
                    raise  # else what init had brought may have been cleared away
        tofu.init()
        tofu.validate()
        return tofu.plan(tofu.folder / PLAN)
    except (StepFailed, Interrupted) as error:
        error.message = f"environment {spec.name}: {error.message}"
        error.remains = error.remains or "Nothing was changed; the environment's state is as it was."
        error.help = error.help or again + ("    # when it is mended" if isinstance(error, StepFailed) else "")
        raise
