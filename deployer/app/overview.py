"""What is shown of an environment: frozen records, JSON-ready, without anything that may be secret.

And what really is, beside what is saved: OpenTofu's view and whether hosts answer. Changes nothing, guesses nothing.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deployer.config.model import Spec
from deployer.environment import AnyEnvironment, Configurable, InProgress, Resources, finished_steps
from deployer.errors import DeployerError
from deployer.events import utc_now
from deployer.process import Context
from deployer.remote.ssh import Target
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.lock import Record
from deployer.tofu.engine import Tofu
from deployer.tofu.state import look
from deployer.workflows.advice import again, next_commands, what_exists
from deployer.workflows.hosts import problems_with, read_hosts


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything a person needs to know of one environment. Times are ISO 8601 in UTC. `problem` says why it cannot be
    read; there is no more to say of it then."""

    name: str
    problem: str = ""
    state: str = ""
    file: str = ""
    interrupted: bool = False  # in progress although nobody works on it
    busy: Mapping[str, Any] | None = None  # the lock's record of who does
    step: str = ""
    failure: Mapping[str, Any] | None = None
    resources: str = ""
    exists: str = ""  # the same in a sentence
    hosts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    provider: str = ""
    playbooks: tuple[str, ...] = ()
    created_at: str = ""
    changed_at: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()
    log: str = ""  # of the last run; those of earlier ones are beside it
    tofu_directory: str = ""
    next_commands: tuple[str, ...] = ()
    reality: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def overview(
    environment: AnyEnvironment, spec: Spec, folder: EnvironmentFolder, holder: Record | None, reality: tuple[str, ...]
) -> Overview:
    shown = {"name", "state", "file", "failure", "resources", "hosts", "created_at", "changed_at"}
    hidden = {"id", "console"}
    facts: dict[str, Any] = environment.model_dump(mode="json", include=shown, exclude={"hosts": {"__all__": hidden}})
    steps = finished_steps(environment)
    differs = isinstance(environment, Configurable) and any(line.startswith("differs") for line in reality)
    # `up` mends it, or says how.
    likely = dict.fromkeys([*([again(environment, "up")] if differs else ()), *next_commands(environment)])
    return Overview(
        **facts,
        interrupted=isinstance(environment, InProgress) and holder is None,
        busy=holder.as_dict() if holder else None,
        step=(environment.progress.step or "") if isinstance(environment, InProgress) else "",
        exists=what_exists(environment, folder.tofu),
        provider=spec.provider.title,
        playbooks=spec.configure.playbooks,
        steps=tuple(step.model_dump(mode="json") | {"seconds": round(step.seconds, 1)} for step in steps),
        log=_log(environment, folder),
        tofu_directory=str(folder.tofu),
        next_commands=(f"deployer show {environment.name}",) if holder else tuple(likely),
        reality=reality,
    )


def _log(environment: AnyEnvironment, folder: EnvironmentFolder) -> str:
    """Of the run that failed or was interrupted, where it lies now, else the newest of one that had steps to do, or of
    anything; nothing where there is none.

    One from the future was written while the clock was ahead, and is no newer than those since then.
    """
    failure = getattr(environment, "failure", None)
    run = f"{environment.progress.run_id}.log" if isinstance(environment, InProgress) else ""
    own = folder.logs / Path(failure.log if failure else run).name
    if os.path.isfile(own):  # a damaged state may spell it as it likes
        return str(own)
    now = f"{utc_now():%Y%m%dT%H%M%S.%fZ}"
    logs = sorted(folder.logs.glob("*.log"), key=lambda log: (log.name < now, log.name), reverse=True)
    return str(next(filter(_had_steps, logs), next(iter(logs), "")))


def _had_steps(log: Path) -> bool:
    with suppress(OSError), log.open(encoding="utf-8", errors="replace") as lines:
        return any(" run_started " in line for line in lines)
    return False


def compare(
    environment: AnyEnvironment, spec: Spec, tofu: Tofu, targets: Sequence[Target], context: Context
) -> Iterator[str]:
    """Lines for people; the first word of each is `same`, `differs` or `unknown`."""
    state = look(tofu.folder)
    if state.errored is not None:
        yield f"differs: OpenTofu left a state it could not save: {state.errored}"
    if state.interrupted:
        yield "differs: OpenTofu was cut short (killed, or a full disk); it may not know all that exists"
    if state.condition in ("absent", "empty", "damaged"):
        expected = environment.resources is Resources.NONE and state.condition == "absent"
        yield f"{'same' if expected else 'differs'}: OpenTofu's state is {state.condition}"
    elif environment.resources is not Resources.NONE:
        yield from _planned(tofu)
        with suppress(DeployerError):  # what cannot be told was said above
            if environment.hosts and read_hosts(tofu.outputs(), spec) != environment.hosts:
                yield "differs: OpenTofu would hand out other addresses than those on record"
    for target, problem in zip(targets, problems_with(targets, context), strict=True):
        same = f"same: {target.name} answers at {target.address} port {target.port}"
        yield f"differs: {problem}" if problem else same


def _planned(tofu: Tofu) -> list[str]:
    try:
        changed = [f"differs: {change.address} was changed or removed behind our back" for change in tofu.drift()]
        plan = tofu.plan()
    except DeployerError as error:
        return [f"unknown: OpenTofu cannot tell: {error}"]
    would = () if plan.empty else plan.changes
    changed += [f"differs: OpenTofu would {change.action} {change.address}" for change in would]
    return changed or ["same: OpenTofu finds everything as it was made"]
