"""OpenTofu's `-json` lines, decoded. What is no such line is passed on as text; only an unknown major of `ui` is
refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, AliasPath, BaseModel, Field, ValidationError

from deployer.errors import FailureKind, StepFailed
from deployer.events import Notice, Output, Report, ResourceProgress, one_line, printable

_STATUS = {"apply_start": "start", "apply_progress": "progress", "apply_complete": "done", "apply_errored": "failed"}

_Text = Annotated[str, AfterValidator(printable)]


@dataclass(frozen=True)
class Change:
    """What OpenTofu would do, or did, with one resource: create, update, replace, delete, read, move, import; and why,
    in its own word, where it says so (`tainted`: making it failed)."""

    address: str
    action: str
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What an apply would do; empty where it would change nothing. `known` is what OpenTofu's state has already."""

    changes: tuple[Change, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return all(change.action == "read" for change in self.changes)

    @property
    def risky(self) -> list[Change]:
        """What would be done with something that exists and works, and by which it may be lost."""
        touching = [change for change in self.changes if change.action in ("update", "replace", "delete")]
        return [change for change in touching if change.reason != "tainted"]

    @property
    def summary(self) -> str:
        count = Counter(change.action for change in self.changes if change.address != "outputs")
        work = ", ".join(f"{number} to {action}" for action, number in sorted(count.items()))
        return work or ("outputs alone" if self.changes else "nothing to do")


class Diagnostic(BaseModel):
    """An error or warning of OpenTofu's, with the resource's address and the place in the configuration."""

    severity: str
    summary: _Text
    detail: _Text = ""
    address: _Text = ""
    file: Annotated[_Text, Field(validation_alias=AliasPath("range", "filename"))] = ""
    line: Annotated[int, Field(validation_alias=AliasPath("range", "start", "line"))] = 0

    @property
    def text(self) -> str:
        return one_line(": ".join(filter(None, (self.summary, self.detail))))

    @property
    def place(self) -> str:
        line = f":{self.line}" if self.line else ""
        return f" ({self.file}{line})" if self.file else ""


class Diagnostics(BaseModel):
    """What `validate -json` says."""

    diagnostics: list[Diagnostic]


class _Work(BaseModel):
    """What is to be done, or being done, with a resource."""

    address: Annotated[_Text, Field(validation_alias=AliasPath("resource", "addr"))] = ""
    action: _Text = ""
    reason: _Text = ""
    importing: object = None
    elapsed_seconds: float = Field(default=0.0, ge=0, le=1e9)
    output: _Text = ""


class _Line(BaseModel):
    type: str
    message: _Text = Field(alias="@message")
    ui: _Text = ""
    # `hook` where it is being done, `change` where it is to be done, or was done behind our back.
    work: Annotated[_Work, Field(validation_alias=AliasChoices("hook", "change"))] = _Work()
    diagnostic: Diagnostic | None = None


@dataclass
class Decoder:
    """Collects what matters of one command's lines, and reports what they tell."""

    report: Report
    veil: Callable[[str], str] = str  # for what is said to people
    applied: list[Change] = field(default_factory=list)
    planned: list[Change] = field(default_factory=list)
    drift: list[Change] = field(default_factory=list)
    known: list[Change] = field(default_factory=list)
    errors: list[Diagnostic] = field(default_factory=list)
    # What a resource's provisioner printed: the cause of a failed local-exec in its own words.
    _printed: dict[str, list[str]] = field(default_factory=dict)

    def line(self, text: str) -> None:
        """Takes one line of stdout. Raises StepFailed where the format has an unknown major version."""
        try:
            line = _Line.model_validate_json(text)
        except ValidationError:
            if text.strip():
                self.report(said(self.veil(text)))
            return
        self.report(said(self.veil(line.message)))
        address, action = line.work.address, line.work.action
        if line.type == "version" and not line.ui.startswith("1."):
            detail = f"its -json output is version {line.ui!r}; version 1 is understood"
            raise StepFailed("this OpenTofu speaks an unknown format", kind=FailureKind.TOOL, detail=detail)
        if line.work.importing and action in ("noop", "update"):
            action = "import"  # of what is there: the module says so
        if line.type == "planned_change" and action != "noop":
            self.planned.append(Change(address, action, line.work.reason))
        elif line.type in ("resource_drift", "refresh_start"):
            (self.drift if line.type == "resource_drift" else self.known).append(Change(address, action))
        elif status := _STATUS.get(line.type):
            if status == "done":
                self.applied.append(Change(address, action))
            seconds = line.work.elapsed_seconds
            self.report(ResourceProgress(address=address, action=action, status=status, seconds=seconds))
        elif line.type == "provision_start":
            self._printed[address] = []
        elif line.type == "provision_progress" and (printed := self.veil(line.work.output.strip())):
            lines = self._printed.setdefault(address, [])
            lines.append(printed)
            if len(lines) > 1:  # the first is OpenTofu's own, repeating the command
                self.report(ResourceProgress(address=address, action="", status="says", message=printed))
        elif line.diagnostic is not None:
            self.diagnose(line.diagnostic)

    def diagnose(self, found: Diagnostic) -> None:
        told = self.veil(found.text) + found.place
        if found.severity == "error":
            self.errors.append(found)
            self.report(said(f"error: {told}"))
        else:
            self.report(Notice(message=f"OpenTofu warns: {told}", level="warning"))

    def failure(self, doing: str, fallback: str) -> StepFailed:
        """The first error as our own, the others counted; `fallback` is the cause where OpenTofu named none."""
        if not self.errors:
            return StepFailed(f"OpenTofu failed to {doing}", kind=FailureKind.TOFU, detail=one_line(fallback))
        first, *others = self.errors
        # A provisioner's diagnostic repeats the whole command; what the program said itself is the better cause.
        cause = one_line(" / ".join(self._printed.get(first.address, [])[1:][-3:])) or self.veil(first.text)
        more = f" (and {len(others)} more, see the log)" if others else ""
        subject = f" at {first.address}" if first.address else ""
        detail = cause + first.place + more
        return StepFailed(f"OpenTofu failed to {doing}{subject}", kind=FailureKind.TOFU, detail=detail)


def said(text: str) -> Output:
    return Output(source="tofu", line=printable(text))
