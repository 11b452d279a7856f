"""OpenTofu's `-json` lines, decoded. Unknown types are passed on as text; only an unknown major of `ui` is refused."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from deployer.errors import FailureKind, StepFailed
from deployer.events import Event, Notice, Output, ResourceProgress, printable

_STATUS = {
    "apply_start": "start",
    "apply_progress": "progress",
    "apply_complete": "done",
    "apply_errored": "failed",
}
_FOR_EVER = 1e9  # seconds; no number beyond it is a duration


@dataclass(frozen=True)
class Change:
    """What OpenTofu would do, or did, with one resource: create, update, replace, delete, read, move, drift."""

    address: str
    action: str


@dataclass(frozen=True)
class Plan:
    """What an apply would do; empty where it would do nothing."""

    changes: tuple[Change, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.changes

    @property
    def summary(self) -> str:
        count: dict[str, int] = defaultdict(int)
        for change in self.changes:
            count[change.action] += 1
        return ", ".join(f"{number} to {action}" for action, number in sorted(count.items())) or "nothing to do"


@dataclass(frozen=True)
class Diagnostic:
    """An error or warning of OpenTofu's, with the resource's address and the place in the configuration."""

    severity: str
    summary: str
    detail: str
    address: str
    place: str  # file:line

    @property
    def line(self) -> str:
        where = f" ({self.place})" if self.place else ""
        return one_line(f"{self.summary}: {self.detail}" if self.detail else self.summary) + where


@dataclass
class Decoder:
    """Collects what matters of one command's lines, and turns them into events."""

    planned: list[Change] = field(default_factory=list)
    drift: list[Change] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    applied: list[Change] = field(default_factory=list)
    _announced: set[str] = field(default_factory=set)
    # What provisioners printed, by resource: the cause of a failed local-exec in its own words.
    _said: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=6)))

    def line(self, text: str) -> tuple[Event, ...]:
        """The events of one line of stdout. Raises StepFailed where the format has an unknown major version."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            return (Output(source="tofu", line=printable(text)),) if text.strip() else ()
        output = Output(source="tofu", line=printable(str(data.get("@message", ""))))
        return (output, *self._events(data))

    def _events(self, data: dict[str, Any]) -> tuple[Event, ...]:
        kind = str(data.get("type"))
        hook = _table(data, "hook")
        change = _table(data, "change")
        address = printable(str((_table(hook, "resource") or _table(change, "resource")).get("addr", "")))
        if kind == "version":
            _check_ui(str(data.get("ui", "")))
        elif kind == "planned_change" and change.get("action") != "noop":
            self.planned.append(Change(address, printable(str(change.get("action")))))
        elif kind == "resource_drift":
            self.drift.append(Change(address, printable(str(change.get("action")))))
        elif kind in _STATUS:
            action = printable(str(hook.get("action", "")))
            if kind == "apply_complete":
                self.applied.append(Change(address, action))
            seconds = hook.get("elapsed_seconds")
            known = float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < _FOR_EVER else 0.0
            return (ResourceProgress(address=address, action=action, status=_STATUS[kind], seconds=known),)
        elif kind == "provision_start":
            self._announced.add(address)
        elif kind == "provision_progress":
            said = printable(str(hook.get("output", ""))).strip()
            if address in self._announced:  # the first line of a provisioner is OpenTofu's, repeating the command
                self._announced.discard(address)
            elif said:
                self._said[address].append(said)
                return (ResourceProgress(address=address, action="", status="says", message=said),)
        elif kind == "diagnostic":
            diagnostic = decode_diagnostic(_table(data, "diagnostic"))
            self.diagnostics.append(diagnostic)
            if diagnostic.severity == "warning":
                return (Notice(message=f"OpenTofu warns: {diagnostic.line}", level="warning"),)
        return ()

    def failure(self, doing: str, fallback: str) -> StepFailed:
        """The first error as our own; `fallback` is the cause where OpenTofu named none."""
        return diagnosed(self.diagnostics, doing, fallback, said={k: tuple(v) for k, v in self._said.items()})


def diagnosed(
    diagnostics: list[Diagnostic], doing: str, fallback: str, *, said: dict[str, tuple[str, ...]] | None = None
) -> StepFailed:
    """OpenTofu's errors as one StepFailed: the first is the cause, the others are counted and in the log."""
    errors = [d for d in diagnostics if d.severity == "error"]
    if not errors:
        return StepFailed(f"OpenTofu failed to {doing}", kind=FailureKind.TOFU, detail=one_line(fallback))
    first = errors[0]
    words = (said or {}).get(first.address, ())
    where = f" ({first.place})" if first.place else ""
    # A provisioner's diagnostic repeats the whole command; what the program said itself is the better cause.
    cause = one_line(" / ".join(words[-3:])) + where if words else first.line
    others = f" (and {len(errors) - 1} more, see the log)" if len(errors) > 1 else ""
    subject = f" at {first.address}" if first.address else ""
    return StepFailed(f"OpenTofu failed to {doing}{subject}", kind=FailureKind.TOFU, detail=cause + others)


def decode_diagnostic(data: dict[str, Any]) -> Diagnostic:
    place = _table(data, "range")
    where = [str(part) for part in (place.get("filename"), _table(place, "start").get("line")) if part]
    return Diagnostic(
        severity=str(data.get("severity", "error")),
        summary=printable(str(data.get("summary", ""))),
        detail=printable(str(data.get("detail", ""))),
        address=printable(str(data.get("address", ""))),
        place=printable(":".join(where)) if place.get("filename") else "",
    )


def one_line(text: str, limit: int = 600) -> str:
    joined = " ".join(printable(text).split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _check_ui(version: str) -> None:
    if version.partition(".")[0] != "1":
        raise StepFailed(
            "this OpenTofu speaks a format that deployer does not know",
            kind=FailureKind.TOOL,
            detail=f"its -json output is version {version!r}; version 1 is understood",
        )
