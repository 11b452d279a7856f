"""What came of a playbook: the recap, or the error that says which host, task and message. Knows no processes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from deployer.ansible.results import Record
from deployer.errors import FailureKind, StepFailed


@dataclass(frozen=True)
class HostRecap:
    """Ansible's own counts for one host."""

    ok: int = 0
    changed: int = 0
    failed: int = 0
    unreachable: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class Recap:
    """Ansible's counts, by host."""

    hosts: dict[str, HostRecap]

    @property
    def changed(self) -> int:
        return self._total("changed")

    @property
    def text(self) -> str:
        """The counts in a few words: `ok=12 changed=3`."""
        names = ["ok", "changed", *(name for name in ("failed", "unreachable") if self._total(name))]
        return " ".join(f"{name}={self._total(name)}" for name in names)

    def _total(self, name: str) -> int:
        return sum(int(getattr(host, name)) for host in self.hosts.values())


@dataclass
class Findings:
    """What a playbook has shown so far. Fed with the child's records; asked for the verdict at the end."""

    task: str = ""
    started: bool = False
    recap: Recap | None = None
    returncode: int | None = None
    ended: bool = False
    problem: str = ""
    failures: dict[str, str] = field(default_factory=dict)  # by host the last one: an earlier may have been rescued
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=15))
    _error: str = ""

    def add(self, record: Record) -> None:
        match record.get("type"):
            case "line":
                text = str(record["text"])
                self.last_lines.append(text)
                if text.startswith(("[ERROR]: ", "ERROR! ")):
                    self._error = text.partition(" ")[2]
                elif text.startswith("Origin: ") and self._error and " (" + text[8:] not in self._error:
                    self._error += f" ({text[8:]})"
            case "task" if record["status"] == "start":
                self.task, self.started = str(record["task"]), True
            case "task" if record["status"] in ("failed", "unreachable"):
                self.failures[record["host"]] = f"task '{record['task']}': {record['message']}"
            case "recap":
                self.recap = Recap({host: HostRecap(**counts) for host, counts in record["hosts"].items()})
            case "end":
                self.ended, self.returncode, self.problem = True, record["rc"], str(record["problem"])
            case _:
                pass

    @property
    def success(self) -> Recap | None:
        """The recap of a playbook that came to a good end. Without an exit code (pexpect lost it) the recap decides."""
        recap = self.recap or (Recap({}) if self.returncode == 0 else None)
        if recap is None or self.returncode not in (0, None) or self._bad_hosts("failed", "unreachable"):
            return None
        return recap

    def failure(self, step: str) -> StepFailed:
        """The error for a playbook that ran to its end and did not succeed."""
        failed, unreachable = self._bad_hosts("failed"), self._bad_hosts("unreachable")
        if bad := failed or unreachable:
            first = next((host for host in self.failures if host in bad), bad[0])
            others = len({*failed, *unreachable}) - 1
            also = f" (and {others} other host{'s' if others > 1 else ''})" if others else ""
            cause = self.failures.get(first, "no message")
            kind = FailureKind.PLAYBOOK if failed else FailureKind.UNREACHABLE
            what = "failed on" if failed else "could not reach"
            return StepFailed(f"{step} {what} {first}", kind=kind, detail=f"{first}: {cause}{also}")
        if not self.ended or self.returncode in (None, 127, 250):
            kind, what = FailureKind.TOOL, "Ansible died"
        elif self.started:
            kind, what = FailureKind.PLAYBOOK, "Ansible gave up"
        else:
            kind, what = FailureKind.INPUT, "Ansible cannot use the playbook"
        detail = self._error or self.problem or (self.last_lines[-1] if self.last_lines else "no message")
        return StepFailed(f"{step}: {what}", kind=kind, detail=detail, excerpt="\n".join(self.last_lines))

    def _bad_hosts(self, *columns: str) -> list[str]:
        hosts = self.recap.hosts if self.recap else {}
        return [name for name, host in hosts.items() if any(getattr(host, column) for column in columns)]
