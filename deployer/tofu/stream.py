"""OpenTofu's `-json` lines, decoded. Unknown types are passed on as text; only an unknown major of `ui` is refused."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from deployer.errors import FailureKind, StepFailed
from deployer.events import Event, Notice, Output, ResourceProgress, printable

_STATUS = {"apply_start": "start", "apply_progress": "progress", "apply_complete": "done", "apply_errored": "failed"}
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
        count = Counter(change.action for change in self.changes)
        return ", ".join(f"{number} to {action}" for action, number in sorted(count.items())) or "nothing to do"


@dataclass(frozen=True)
class Diagnostic:
    """An error or warning of OpenTofu's, with the resource's address and the place in the configuration."""

    text: str
    address: str
    place: str  # " (file:line)", or nothing

    @property
    def line(self) -> str:
        return self.text + self.place


@dataclass
class Decoder:
    """Collects what matters of one command's lines, and turns them into events."""

    planned: list[Change] = field(default_factory=list)
    drift: list[Change] = field(default_factory=list)
    errors: list[Diagnostic] = field(default_factory=list)
    applied: list[Change] = field(default_factory=list)
    _announced: set[str] = field(default_factory=set)
    # What provisioners printed, by resource: the cause of a failed local-exec in its own words.
    _said: dict[str, deque[str]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=3)))

    def line(self, text: str) -> tuple[Event, ...]:
        """The events of one line of stdout. Raises StepFailed where the format has an unknown major version."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            return (Output(source="tofu", line=printable(text)),) if text.strip() else ()
        output = Output(source="tofu", line=_text(data, "@message"))
        return (output, *self._events(data))

    def diagnose(self, data: dict[str, Any]) -> tuple[Event, ...]:
        """The events of one diagnostic."""
        diagnostic = decode_diagnostic(data)
        if data.get("severity", "error") != "error":
            return (Notice(message=f"OpenTofu warns: {diagnostic.line}", level="warning"),)
        self.errors.append(diagnostic)
        return ()

    def failure(self, doing: str, fallback: str) -> StepFailed:
        """The first error as our own, the others counted; `fallback` is the cause where OpenTofu named none."""
        if not self.errors:
            return StepFailed(f"OpenTofu failed to {doing}", kind=FailureKind.TOFU, detail=one_line(fallback))
        first, *others = self.errors
        # A provisioner's diagnostic repeats the whole command; what the program said itself is the better cause.
        cause = one_line(" / ".join(self._said.get(first.address, ()))) or first.text
        more = f" (and {len(others)} more, see the log)" if others else ""
        subject = f" at {first.address}" if first.address else ""
        detail = cause + first.place + more
        return StepFailed(f"OpenTofu failed to {doing}{subject}", kind=FailureKind.TOFU, detail=detail)

    def _events(self, data: dict[str, Any]) -> tuple[Event, ...]:
        kind = str(data.get("type"))
        hook, change = _table(data, "hook"), _table(data, "change")
        address = _text(_table(hook, "resource") or _table(change, "resource"), "addr")
        action = _text(hook or change, "action")
        if kind == "version":
            if not _text(data, "ui").startswith("1."):
                detail = f"its -json output is version {_text(data, 'ui')!r}; version 1 is understood"
                raise StepFailed("this OpenTofu speaks an unknown format", kind=FailureKind.TOOL, detail=detail)
        elif kind == "planned_change" and action != "noop":
            self.planned.append(Change(address, action))
        elif kind == "resource_drift":
            self.drift.append(Change(address, action))
        elif kind in _STATUS:
            if kind == "apply_complete":
                self.applied.append(Change(address, action))
            seconds = hook.get("elapsed_seconds")
            known = float(seconds) if isinstance(seconds, (int, float)) and 0 <= seconds < _FOR_EVER else 0.0
            return (ResourceProgress(address=address, action=action, status=_STATUS[kind], seconds=known),)
        elif kind == "provision_start":
            self._announced.add(address)
        elif kind == "provision_progress":
            said = _text(hook, "output").strip()
            if address in self._announced:  # the first line of a provisioner is OpenTofu's, repeating the command
                self._announced.discard(address)
            elif said:
                self._said[address].append(said)
                return (ResourceProgress(address=address, action="", status="says", message=said),)
        elif kind == "diagnostic":
            return self.diagnose(_table(data, "diagnostic"))
        return ()


def decode_diagnostic(data: dict[str, Any]) -> Diagnostic:
    place = _table(data, "range")
    where = ":".join(filter(None, (_text(place, "filename"), _text(_table(place, "start"), "line"))))
    return Diagnostic(
        text=one_line(": ".join(filter(None, (_text(data, "summary"), _text(data, "detail"))))),
        address=_text(data, "address"),
        place=f" ({where})" if place.get("filename") else "",
    )


def one_line(text: str, limit: int = 600) -> str:
    joined = " ".join(printable(text).split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _text(data: dict[str, Any], key: str) -> str:
    return printable(str(data.get(key) or ""))
