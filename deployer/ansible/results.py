"""What Ansible's words mean, and which are not to be repeated. Knows no processes and prints nothing.

A record is what the child writes to its stdout, one JSON object a line; `type` says which: line, task, notice, recap.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Record = dict[str, Any]

_LONGEST = 100_000  # characters: a record longer than a megabyte would not arrive whole
_SAID = ("stderr", "module_stderr", "assertion", "module_stdout", "stdout")  # the best first
_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|private", re.IGNORECASE)


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
    if status == "failed" and data.get("ignore_errors"):
        status, message = "ok", f"ignored: {message}"
    elif status == "ok" and result.get("changed"):
        status = "changed"
    title = " : ".join(str(data[key]) for key in ("role", "task") if data.get(key))
    return {"type": "task", "status": status, "task": title, "host": str(data.get("host") or ""), "message": message}


def message_of(result: Mapping[str, Any]) -> str:
    """Why a task failed, in one line: its message, and the last line the module printed; never its arguments."""
    if "censored" in result:
        return "hidden, because the task has no_log"
    for item in (*(result.get("results") or ()), *(result.get("failed_modules") or {}).values()):
        if isinstance(item, Mapping) and (item.get("failed") or item.get("unreachable")):
            return message_of(item)
    message = result.get("msg", "")
    text = message if isinstance(message, str) else json.dumps(message)
    if result.get("unreachable"):
        text = _last_line(text)  # ssh's cause; before it come banners and a changed host key's frame
    said = next(filter(None, (_last_line(str(result.get(name) or "")) for name in _SAID)), "")
    if said not in text:
        text = ": ".join(filter(None, (text, said)))
    return " ".join(text.split())[:_LONGEST] or "no message"


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


def veil(variables: Mapping[str, object]) -> Callable[[str], str]:
    """Puts a variable's name in the place of its value: what users keep in `variables` is theirs to show, not ours.

    Short values stay, or every "80" and "yes" would vanish, unless the variable is named as a secret is.
    """
    names: dict[str, str] = {}
    for name, value in _leaves(variables):
        if len(value) >= (4 if _SECRET_NAME.search(name) else 8):
            for written in (value, json.dumps(value)[1:-1], *value.splitlines()):
                if len(written.strip()) >= 4:
                    names.setdefault(written, "{{ " + name + " }}")
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # (?!) is nowhere
    return lambda text: pattern.sub(lambda found: names[found[0]], text)


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield name, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from _leaves(below, f"{name}.{key}".lstrip("."))
