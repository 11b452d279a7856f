"""What is shown of an environment: frozen records, JSON-ready, without anything that may be secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from deployer.config.model import Spec
from deployer.environment import AnyEnvironment, Failed, FinishedStep, InProgress
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.record import Record
from deployer.workflows.advice import next_commands, what_exists


@dataclass(frozen=True, kw_only=True)
class _Shown:
    name: str
    state: str
    interrupted: bool = False  # in progress although nobody works on it
    resources: str = ""
    changed_at: str = ""

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Entry(_Shown):
    """One line of a list. `problem` says why an environment cannot be read; its state is empty then."""

    busy: bool = False
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Overview(_Shown):
    """Everything a person needs to know of one environment. Times are ISO 8601 in UTC."""

    busy: Mapping[str, object] | None
    step: str
    failure: Mapping[str, object] | None
    exists: str
    hosts: Mapping[str, Mapping[str, object]]
    provider: str
    playbooks: tuple[str, ...]
    created_at: str
    steps: tuple[Mapping[str, object], ...]
    log: str
    tofu_directory: str
    next_commands: tuple[str, ...]
    reality: tuple[str, ...]


def entry(environment: AnyEnvironment, holder: Record | None) -> Entry:
    return Entry(**_shown(environment, holder), busy=holder is not None)


def overview(
    environment: AnyEnvironment, spec: Spec, folder: EnvironmentFolder, holder: Record | None, reality: tuple[str, ...]
) -> Overview:
    failure = environment.failure.model_dump(mode="json") if isinstance(environment, Failed) else None
    finished = finished_steps(environment)
    logs = sorted(folder.logs.glob("*.log"))
    return Overview(
        **_shown(environment, holder),
        busy=holder.as_dict() if holder else None,
        step=(environment.progress.step or "") if isinstance(environment, InProgress) else "",
        failure=failure,
        exists=what_exists(environment, folder.tofu),
        hosts={n: h.model_dump(mode="json", exclude={"id", "console"}) for n, h in environment.hosts.items()},
        provider=spec.provider.title,
        playbooks=spec.configure.playbooks,
        created_at=_iso(environment.created_at),
        steps=tuple({"name": s.name, "seconds": round(s.seconds, 1), "ended_at": _iso(s.ended_at)} for s in finished),
        log=str(failure["log"]) if failure else str(logs[-1]) if logs else "",
        tofu_directory=str(folder.tofu),
        next_commands=(f"deployer show {environment.name}",) if holder else next_commands(environment),
        reality=reality,
    )


def finished_steps(environment: AnyEnvironment) -> tuple[FinishedStep, ...]:
    """The steps of the command that is at work, or was the last one."""
    progress = environment.progress if isinstance(environment, InProgress) else environment
    return getattr(progress, "finished", ())


def _shown(environment: AnyEnvironment, holder: Record | None) -> dict[str, Any]:
    return {
        "name": environment.name,
        "state": environment.state,
        "interrupted": isinstance(environment, InProgress) and holder is None,
        "resources": str(environment.resources),
        "changed_at": _iso(environment.changed_at),
    }


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
