"""What is shown of an environment: frozen records, JSON-ready, without anything that may be secret."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deployer.config.model import Spec
from deployer.environment import AnyEnvironment, Configurable, FinishedStep, InProgress
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.lock import Record
from deployer.workflows.advice import again, next_commands, what_exists


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything a person needs to know of one environment. Times are ISO 8601 in UTC. `problem` says why it cannot be
    read; there is no more to say of it then."""

    name: str
    problem: str = ""
    state: str = ""
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
    facts: dict[str, Any] = environment.model_dump(
        mode="json",
        include={"name", "state", "failure", "resources", "hosts", "created_at", "changed_at"},
        exclude={"hosts": {"__all__": {"id", "console"}}},
    )
    steps = finished_steps(environment)
    differs = isinstance(environment, Configurable) and any(line.startswith("differs") for line in reality)
    likely: dict[str, None] = dict.fromkeys([again(environment, "up")] if differs else [])
    likely |= dict.fromkeys(next_commands(environment))
    return Overview(
        **facts,
        interrupted=isinstance(environment, InProgress) and holder is None,
        busy=holder.as_dict() if holder else None,
        step=(environment.progress.step or "") if isinstance(environment, InProgress) else "",
        exists=what_exists(environment, folder.tofu),
        provider=spec.provider.title,
        playbooks=spec.configure.playbooks,
        steps=tuple(step.model_dump(mode="json") | {"seconds": round(step.seconds, 1)} for step in steps),
        log=(facts.get("failure") or {}).get("log") or max(map(str, folder.logs.glob("*.log")), default=""),
        tofu_directory=str(folder.tofu),
        next_commands=(f"deployer show {environment.name}",) if holder else tuple(likely),
        reality=reality,
    )


def finished_steps(environment: AnyEnvironment) -> tuple[FinishedStep, ...]:
    """The steps of the command that is at work, or was the last one."""
    progress = environment.progress if isinstance(environment, InProgress) else environment
    return getattr(progress, "finished", ())
