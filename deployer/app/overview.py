"""What is shown of an environment: frozen records, JSON-ready, without anything that may be secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from deployer.config.model import Spec
from deployer.environment import AnyEnvironment, Failed, InProgress
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.record import Record
from deployer.workflows.advice import next_commands, what_exists


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a list. `problem` says why an environment cannot be read; its state is empty then."""

    name: str
    state: str
    interrupted: bool = False  # in progress although nobody works on it
    busy: bool = False
    resources: str = ""
    changed_at: str = ""
    problem: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Everything a person needs to know of one environment. Times are ISO 8601 in UTC."""

    name: str
    state: str
    interrupted: bool
    busy: Mapping[str, object] | None
    step: str
    failure: Mapping[str, object] | None
    resources: str
    exists: str
    hosts: Mapping[str, Mapping[str, object]]
    provider: str
    playbooks: tuple[str, ...]
    created_at: str
    changed_at: str
    steps: tuple[Mapping[str, object], ...]
    log: str
    tofu_directory: str
    next_commands: tuple[str, ...]
    reality: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def entry(environment: AnyEnvironment, holder: Record | None) -> Entry:
    return Entry(
        name=environment.name,
        state=environment.state,
        interrupted=isinstance(environment, InProgress) and holder is None,
        busy=holder is not None,
        resources=str(environment.resources),
        changed_at=_iso(environment.changed_at),
    )


def overview(
    environment: AnyEnvironment, spec: Spec, folder: EnvironmentFolder, holder: Record | None, reality: tuple[str, ...]
) -> Overview:
    progress = environment.progress if isinstance(environment, InProgress) else None
    failure = environment.failure.model_dump(mode="json") if isinstance(environment, Failed) else None
    finished = progress.finished if progress else getattr(environment, "finished", ())
    logs = sorted(folder.logs.glob("*.log"))
    return Overview(
        name=environment.name,
        state=environment.state,
        interrupted=progress is not None and holder is None,
        busy=holder.as_dict() if holder else None,
        step=(progress.step or "") if progress else "",
        failure=failure,
        resources=str(environment.resources),
        exists=what_exists(environment, folder.tofu),
        hosts={n: h.model_dump(mode="json", exclude={"id", "console"}) for n, h in environment.hosts.items()},
        provider=spec.provider.title,
        playbooks=spec.configure.playbooks,
        created_at=_iso(environment.created_at),
        changed_at=_iso(environment.changed_at),
        steps=tuple({"name": s.name, "seconds": round(s.seconds, 1), "ended_at": _iso(s.ended_at)} for s in finished),
        log=str(failure["log"]) if failure else str(logs[-1]) if logs else "",
        tofu_directory=str(folder.tofu),
        next_commands=(f"deployer show {environment.name}",) if holder else next_commands(environment),
        reality=reality,
    )


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
