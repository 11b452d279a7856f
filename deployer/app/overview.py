"""What is shown of an environment: frozen records, JSON-ready, without anything that may be secret."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from deployer.environment import AnyEnvironment, Environment, Failed, InProgress
from deployer.storage.folder import EnvironmentFolder
from deployer.storage.record import Record


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a list. `problem` says why an environment cannot be read; its state is empty then."""

    name: str
    state: str
    interrupted: bool = False
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
    """`interrupted`: in progress although nobody works on it."""
    return Entry(
        name=environment.name,
        state=environment.state,
        interrupted=isinstance(environment, InProgress) and holder is None,
        busy=holder is not None,
        resources=str(environment.resources),
        changed_at=_iso(environment.changed_at),
    )


def steps_of(environment: Environment) -> tuple[dict[str, object], ...]:
    """The finished steps of the last command, with their seconds."""
    progress = getattr(environment, "progress", None)
    finished = progress.finished if progress else getattr(environment, "finished", ())
    return tuple({"name": s.name, "seconds": round(s.seconds, 1), "ended_at": _iso(s.ended_at)} for s in finished)


def failure_of(environment: AnyEnvironment) -> dict[str, object] | None:
    if not isinstance(environment, Failed):
        return None
    failure = environment.failure
    return {
        "step": failure.step,
        "kind": str(failure.kind),
        "cause": failure.cause,
        "at": _iso(failure.at),
        "log": failure.log,
    }


def hosts_of(environment: Environment) -> dict[str, dict[str, object]]:
    return {
        name: {
            "address": host.address,
            "port": host.port,
            "user": host.user,
            "ports": [{"host": p.host, "machine": p.machine} for p in host.ports],
        }
        for name, host in environment.hosts.items()
    }


def last_log(folder: EnvironmentFolder) -> str:
    logs = sorted(folder.logs.glob("*.log")) if folder.logs.is_dir() else []
    return str(logs[-1]) if logs else ""


def in_flight(environment: AnyEnvironment) -> str:
    return (environment.progress.step or "") if isinstance(environment, InProgress) else ""


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
