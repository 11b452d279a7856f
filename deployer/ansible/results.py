"""What Ansible's words mean, which are not to be repeated, and what came of a playbook. Knows no processes.

A record is a JSON object, one a line on the child's stdout; `type` says which: line, task, notice, recap or
end; and stopping, with the process groups that were asked to stop.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deployer.errors import FailureKind, StepFailed
from deployer.events import Notice, Output, Report, TaskProgress, one_line, printable

Record = dict[str, Any]

_LONGEST = 20_000  # characters: a record longer than a megabyte, in JSON, would not arrive whole
_SAID = ("stderr", "module_stderr", "assertion", "module_stdout", "stdout")  # the best first
_KILLED = "ansible-playbook was ended by a signal: somebody killed it, or the system did, for want of memory"
_ERROR = ("[ERROR]: ", "ERROR! ")  # as a line begins, since Ansible 2.19 and before


def records_of(event: Mapping[str, Any]) -> Iterator[Record]:
    """The records of one ansible-runner event; an event of an unknown kind gives its printed lines alone."""
    for text in str(event.get("stdout") or "").splitlines():
        yield {"type": "line", "text": text[:_LONGEST]}
    name, data = str(event.get("event")), event.get("event_data") or {}
    if name == "playbook_on_task_start":
        yield _task("start", data)
    elif name in ("runner_on_ok", "runner_on_skipped", "runner_on_failed", "runner_on_unreachable"):
        yield _task(name.removeprefix("runner_on_"), data)
    elif name == "playbook_on_no_hosts_matched":
        yield {"type": "notice", "message": f"no host matched the play {data.get('play') or ''}".rstrip()}
    elif name == "playbook_on_stats":
        ok, changed, failed, dark = (data.get(column) or {} for column in ("ok", "changed", "failures", "dark"))
        yield {
            "type": "recap",
            "ok": sum(ok.values()),
            "changed": sum(changed.values()),
            "failed": [host for host, count in failed.items() if count],
            "unreachable": [host for host, count in dark.items() if count],
        }


def _task(status: str, data: Mapping[str, Any]) -> Record:
    result = data.get("res") or {}
    message = message_of(result) if status in ("failed", "unreachable") else ""
    if status == "failed" and not result:  # ansible-runner leaves out what is longer than 700,000 characters
        message = "its result is too long to be told; the log has its beginning"
    if status == "failed" and data.get("ignore_errors"):
        status, message = "ok", f"ignored: {message}"
    elif status == "ok" and result.get("changed"):
        status = "changed"
    title = " : ".join(str(data[key]) for key in ("role", "task") if data.get(key))[:_LONGEST]
    return {"type": "task", "status": status, "task": title, "host": str(data.get("host") or ""), "message": message}


def message_of(result: Mapping[str, Any]) -> str:
    """Why a task failed, in one line: its message, and the last line the module printed; never its arguments."""
    if "censored" in result:
        return "hidden, because the task has no_log"
    items, modules = result.get("results"), result.get("failed_modules")
    items = [*(items if isinstance(items, list) else ()), *(modules.values() if isinstance(modules, dict) else ())]
    for item in items:
        # Since ansible-core 2.20 an item does not say that it has failed, but then it has an exception.
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable") or "exception" in item):
            return message_of(item)
    message = result.get("msg", result.get("reason", ""))  # an include that cannot be done has a reason
    text = message if isinstance(message, str) else json.dumps(message)
    if result.get("unreachable"):
        text = _last_line(text)  # ssh's cause; before it come banners and a changed host key's frame
    # Where the module had a terminal (`raw`), all its words are on stdout, and stderr has ssh's farewell.
    words = (_last_line(str(result.get(name) or "")) for name in _SAID)
    said = next((line for line in words if line and not line.startswith("Shared connection to ")), "")
    if said not in text:
        text = ": ".join(filter(None, (text.rstrip("."), said)))
    return " ".join(text.split())[:_LONGEST] or "no message"


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


class Findings:
    """What a playbook has shown so far. Fed with records, which it reports; asked for the verdict in the end."""

    def __init__(self, step: str, *, veil: Callable[[str], str], report: Report) -> None:
        self._step, self._veil, self._report = step, veil, report
        self._did = ""  # as the recap says in the end
        self._failed: Sequence[str] = ()
        self._unreachable: Sequence[str] = ()
        self._returncode: int | None = None
        self._ended = False
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
            case {"type": "recap", "ok": ok, "changed": changed, "failed": failed, "unreachable": unreachable}:
                self._did, self._failed, self._unreachable = f"ok={ok} changed={changed}", failed, unreachable
            case {"type": "end", "rc": returncode}:
                self._returncode, self._ended = returncode, True
            case _:
                pass

    def _clean(self, text: str) -> str:
        return printable(self._veil(text))  # before anything is cut off, or half a secret would be left

    def _line(self, text: str) -> None:
        continued = text.strip() and self._lines and self._lines[-1].startswith(_ERROR)
        self._lines.append(text)
        if text.startswith(_ERROR):
            self._error = one_line(text.partition(" ")[2])
        elif text.startswith("Origin: ") and self._error and " (" + text[8:] not in self._error:
            self._error += f" ({text[8:]})"
        elif continued:
            self._error = one_line(f"{self._error} {text}")  # "Unable to retrieve file contents.": which is said here
        self._report(Output(source="ansible", line=text))

    def _task(self, task: str, status: str, host: str, message: str) -> None:
        if status == "start":
            self.task = task
        elif status in ("failed", "unreachable"):
            self._failures[host] = f"task '{task}': {message}"
        playbook = self._step.removeprefix("playbook:")
        self._report(TaskProgress(playbook=playbook, task=task, status=status, host=host, message=message))

    @property
    def success(self) -> str:
        """What a playbook that came to a good end did, else nothing. Without an exit code (pexpect lost it) the recap
        decides; with one it does not: a play may clear the errors of its hosts. Without plays there is no recap."""
        if self._returncode or (self._returncode is None and (self._failed or self._unreachable)):
            return ""
        return self._did or ("ok=0 changed=0" if self._returncode == 0 else "")

    @property
    def failure(self) -> StepFailed:
        """The error for a playbook that ended and did not succeed."""
        if bad := self._failed or self._unreachable:
            first = next(host for host in (*self._failures, *bad) if host in bad)
            detail = self._failures.get(first, "no message")
            for what, hosts in (("also failed", self._failed), ("unreachable", self._unreachable)):
                if others := ", ".join(host for host in hosts if host != first):
                    detail += f"; {what}: {one_line(others, 200)}"
            if self._failed:
                return StepFailed(f"failed on {first}", kind=FailureKind.PLAYBOOK, detail=detail)
            return StepFailed(f"{first} could not be reached", kind=FailureKind.UNREACHABLE, detail=detail)
        kind, what = FailureKind.INPUT, "Ansible gave up" if self.task else "Ansible cannot use the playbook"
        last = one_line(next(filter(str.strip, reversed(self._lines)), "no message"))
        detail = self._error or last
        if self._returncode in (None, 127, 250):
            kind, what = FailureKind.TOOL, "Ansible died"
        if self._returncode is None:  # an end without a code is ansible-runner's way to tell of a signal
            detail = _KILLED if self._ended else last
        return StepFailed(what, kind=kind, detail=detail, excerpt="\n".join(self._lines))
