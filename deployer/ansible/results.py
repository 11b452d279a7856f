"""What Ansible's words mean: a runner event becomes a few plain records. Knows no processes and prints nothing.

A record is what the child writes to its stdout, one JSON object a line; `type` says which: line, task, notice, recap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Record = dict[str, Any]

LONGEST_MESSAGE = 400
# What modules say when they mean "read the rest".
_EMPTY_WORDS = re.compile(
    r"^(non-zero return code|module failure.*|module result deserialization failed.*|"
    r"(one or more items|all items|task|module) (failed|completed).*|assertion failed\.?|failed)?$",
    re.IGNORECASE | re.DOTALL,
)
_BETTER_WORDS = ("stderr", "module_stderr", "assertion", "module_stdout", "stdout", "exception")
_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|private", re.IGNORECASE)


def records_of(event: Mapping[str, Any]) -> Iterator[Record]:
    """The records of one ansible-runner event; an event of an unknown kind gives its printed lines alone."""
    for text in str(event.get("stdout") or "").splitlines():
        yield {"type": "line", "text": text}
    data: Mapping[str, Any] = event.get("event_data") or {}
    result: Mapping[str, Any] = data.get("res") or {}
    match event.get("event"):
        case "playbook_on_task_start":
            yield {"type": "task", "status": "start", "task": str(data.get("name") or ""), "host": ""}
        case "runner_on_ok":
            yield _task(data, "changed" if result.get("changed") else "ok")
        case "runner_on_skipped":
            yield _task(data, "skipped")
        case "runner_on_failed" if data.get("ignore_errors"):
            yield _task(data, "ok", "ignored: " + message_of(result))
        case "runner_on_failed":
            yield _task(data, "failed", message_of(result))
        case "runner_on_unreachable":
            # ssh's last line is the cause; before it come banners and a changed host key's frame.
            words = str(result.get("msg") or "").strip().splitlines()
            yield _task(data, "unreachable", message_of({**result, "msg": words[-1] if words else ""}))
        case "playbook_on_no_hosts_matched":
            yield {"type": "notice", "message": f"no host matched the play {data.get('play') or ''}".rstrip()}
        case "playbook_on_stats":
            yield {"type": "recap", "hosts": _hosts(data)}
        case _:
            pass


def message_of(result: Mapping[str, Any]) -> str:
    """Why a task failed, in one bounded line: its message, or what the module printed; never its arguments."""
    if "censored" in result:
        return "hidden, because the task has no_log"
    for item in (*_values(result.get("results")), *_values(result.get("failed_modules"))):
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable")):
            return message_of(item)
    message = result.get("msg", "")
    text = _one_line(message if isinstance(message, str) else json.dumps(message))
    if _EMPTY_WORDS.match(text):
        for name in _BETTER_WORDS:
            lines = [line for line in str(result.get(name) or "").splitlines() if line.strip()]
            if lines:
                return _one_line(f"{text}: {lines[-1]}" if text else lines[-1])
    return text or "no message"


class Veil:
    """Puts a variable's name in the place of its value: what users keep in `variables` is theirs to show, not ours.

    Short values are left alone, or every "80" and "yes" would vanish, unless the variable is named as a secret is.
    """

    def __init__(self, variables: Mapping[str, Any]) -> None:
        names: dict[str, str] = {}
        for name, value in _leaves(variables):
            if len(value) >= (4 if _SECRET_NAME.search(name) else 8):
                for written in (value, json.dumps(value)[1:-1], *value.splitlines()):
                    if len(written.strip()) >= 4:
                        names.setdefault(written, "{{ " + name + " }}")
        self._names = names
        longest_first = sorted(names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if names else None

    def over(self, text: str) -> str:
        return self._pattern.sub(lambda found: self._names[found[0]], text) if self._pattern else text

    def over_record(self, record: Record) -> Record:
        return {key: self.over(value) if isinstance(value, str) else value for key, value in record.items()}


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves(below, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for number, below in enumerate(value):
            yield from _leaves(below, f"{name}[{number}]")
    elif isinstance(value, str):
        yield name, value


def _task(data: Mapping[str, Any], status: str, message: str = "") -> Record:
    title = " : ".join(str(data[key]) for key in ("role", "task") if data.get(key))
    return {"type": "task", "status": status, "task": title, "host": str(data.get("host") or ""), "message": message}


def _hosts(stats: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    columns = {"ok": "ok", "changed": "changed", "failed": "failures", "unreachable": "dark", "skipped": "skipped"}
    return {
        host: {ours: int((stats.get(theirs) or {}).get(host, 0)) for ours, theirs in columns.items()}
        for host in stats.get("processed") or {}
    }


def _values(several: object) -> list[object]:
    return list(several.values()) if isinstance(several, Mapping) else several if isinstance(several, list) else []


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"
