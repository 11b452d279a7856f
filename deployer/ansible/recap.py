"""What came of a playbook: its records heard one by one, in the end a few words or the error. Knows no processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployer.ansible.results import Record
from deployer.errors import FailureKind, StepFailed
from deployer.events import Notice, Output, Report, TaskProgress, one_line, printable


@dataclass(frozen=True, kw_only=True)
class Recap:
    """How many tasks were ok and changed, on all hosts together, and which hosts failed or could not be reached."""

    ok: int = 0
    changed: int = 0
    failed: Sequence[str] = ()
    unreachable: Sequence[str] = ()


class Findings:
    """What a playbook has shown so far. Fed with records, which it reports; asked for the verdict in the end."""

    def __init__(self, step: str, *, veil: Callable[[str], str], report: Report) -> None:
        self._step, self._veil, self._report = step, veil, report
        self._recap: Recap | None = None
        self._returncode: int | None = None
        self._failures: dict[str, str] = {}
        self._lines: deque[str] = deque(maxlen=15)
        self._error = ""
        self.task = ""  # the last one that started

    def add(self, record: Record) -> None:
        match record:
            case {"type": "line", "text": text}:
                self._line(self._clean(text))
            case {"type": "task", "task": task, "status": status, "host": host, "message": message}:
                self._task(self._clean(task), status, printable(host), one_line(self._clean(message)))
            case {"type": "notice", "message": message}:
                self._report(Notice(message=f"{self._step}: {self._clean(message)}", level="warning"))
            case {"type": "recap", **counts}:
                self._recap = Recap(**counts)
            case {"type": "end", "rc": returncode}:
                self._returncode = returncode
            case _:
                pass

    def _clean(self, text: str) -> str:
        return printable(self._veil(text))  # before anything is cut off, or half a secret would be left

    def _line(self, text: str) -> None:
        self._lines.append(text)
        if text.startswith(("[ERROR]: ", "ERROR! ")):
            self._error = one_line(text.partition(" ")[2])
        elif text.startswith("Origin: ") and self._error and " (" + text[8:] not in self._error:
            self._error += f" ({text[8:]})"
        self._report(Output(source="ansible", line=text))

    def _task(self, task: str, status: str, host: str, message: str) -> None:
        if status == "start":
            self.task = task
        elif status in ("failed", "unreachable"):
            self._failures[host] = f"task '{task}': {message}"
        playbook = self._step.removeprefix("playbook:")
        self._report(TaskProgress(playbook=playbook, task=task, status=status, host=host, message=message))

    @property
    def success(self) -> str | None:
        """What a playbook that came to a good end did. Without an exit code (pexpect lost it) the recap decides."""
        recap = self._recap or (Recap() if self._returncode == 0 else None)
        if recap is None or self._returncode not in (0, None) or recap.failed or recap.unreachable:
            return None
        return f"ok={recap.ok} changed={recap.changed}"

    @property
    def failure(self) -> StepFailed:
        """The error for a playbook that ended and did not succeed."""
        recap = self._recap or Recap()
        kind, what, bad = FailureKind.PLAYBOOK, "failed on", recap.failed
        if not bad:
            kind, what, bad = FailureKind.UNREACHABLE, "could not reach", recap.unreachable
        if bad:
            first = next(host for host in (*self._failures, *bad) if host in bad)
            others = ", ".join(host for host in (*recap.failed, *recap.unreachable) if host != first)
            also = f"; and not done on {one_line(others, 200)}" if others else ""
            detail = f"{first}: {self._failures.get(first, 'no message')}{also}"
            return StepFailed(f"{self._step} {what} {first}", kind=kind, detail=detail)
        kind, what = FailureKind.INPUT, "Ansible cannot use the playbook"
        if self._returncode in (None, 127, 250):
            kind, what = FailureKind.TOOL, "Ansible died"
        detail = self._error or one_line(next(filter(str.strip, reversed(self._lines)), "no message"))
        return StepFailed(f"{self._step}: {what}", kind=kind, detail=detail, excerpt="\n".join(self._lines))
