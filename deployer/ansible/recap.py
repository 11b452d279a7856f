"""What came of a playbook: its records heard one by one, in the end a recap or the error. Knows no processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deployer.ansible.results import Record
from deployer.errors import FailureKind, StepFailed
from deployer.events import Notice, Output, Report, TaskProgress, printable

LONGEST_MESSAGE = 400


@dataclass(frozen=True)
class Recap:
    """Ansible's counts for each host: ok, changed, failed, unreachable, skipped."""

    hosts: Mapping[str, Mapping[str, int]]

    @property
    def text(self) -> str:
        return f"ok={self.total('ok')} changed={self.total('changed')}"

    def total(self, column: str) -> int:
        return sum(counts[column] for counts in self.hosts.values())

    def hosts_with(self, *columns: str) -> list[str]:
        return [host for host, counts in self.hosts.items() if any(counts[column] for column in columns)]


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
        # Veiled before anything is cut off, or half a secret would be left.
        clean: Record = {key: printable(self._veil(v)) if isinstance(v, str) else v for key, v in record.items()}
        match clean:
            case {"type": "line", "text": text}:
                self._line(text)
            case {"type": "task", "task": task, "status": status, "host": host, "message": long}:
                message = _bounded(long)
                if status == "start":
                    self.task = task
                elif status in ("failed", "unreachable"):
                    self._failures[host] = f"task '{task}': {message}"
                playbook = self._step.removeprefix("playbook:")
                self._report(TaskProgress(playbook=playbook, task=task, status=status, host=host, message=message))
            case {"type": "notice", "message": message}:
                self._report(Notice(message=f"{self._step}: {message}", level="warning"))
            case {"type": "recap", "hosts": hosts}:
                self._recap = Recap(hosts)
            case {"type": "end", "rc": returncode}:
                self._returncode = returncode
            case _:
                pass

    def _line(self, text: str) -> None:
        self._lines.append(text)
        if text.startswith(("[ERROR]: ", "ERROR! ")):
            self._error = _bounded(text.partition(" ")[2])
        elif text.startswith("Origin: ") and self._error and " (" + text[8:] not in self._error:
            self._error += f" ({text[8:]})"
        self._report(Output(source="ansible", line=text))

    @property
    def success(self) -> Recap | None:
        """The recap of a playbook that came to a good end. Without an exit code (pexpect lost it) the recap decides."""
        recap = self._recap or (Recap({}) if self._returncode == 0 else None)
        good = recap and self._returncode in (0, None) and not recap.hosts_with("failed", "unreachable")
        return recap if good else None

    @property
    def failure(self) -> StepFailed:
        """The error for a playbook that ended and did not succeed."""
        recap = self._recap or Recap({})
        failed, unreachable = recap.hosts_with("failed"), recap.hosts_with("unreachable")
        if bad := failed or unreachable:
            kind, what = (FailureKind.PLAYBOOK, "failed on") if failed else (FailureKind.UNREACHABLE, "could not reach")
            first = next(host for host in (*self._failures, *bad) if host in bad)
            others = len({*failed, *unreachable}) - 1
            also = f" (and {others} other host{'s' * (others > 1)})" if others else ""
            detail = f"{first}: {self._failures.get(first, 'no message')}{also}"
            return StepFailed(f"{self._step} {what} {first}", kind=kind, detail=detail)
        kind, what = FailureKind.INPUT, "Ansible cannot use the playbook"
        if self._returncode in (None, 127, 250):
            kind, what = FailureKind.TOOL, "Ansible died"
        elif self.task:
            kind, what = FailureKind.PLAYBOOK, "Ansible gave up"
        detail = self._error or _bounded(next(filter(str.strip, reversed(self._lines)), "no message"))
        return StepFailed(f"{self._step}: {what}", kind=kind, detail=detail, excerpt="\n".join(self._lines))


def _bounded(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
