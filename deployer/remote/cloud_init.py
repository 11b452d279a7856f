"""What cloud-init's own report means. Decides from text alone; runs nothing and knows no time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from deployer.remote.words import one_line


class CloudInitOutcome(StrEnum):
    RUNNING = "running"  # not over: not started, running, or running with errors so far
    DONE = "done"
    DEGRADED = "degraded"  # done, with recoverable errors; a mere deprecation is one
    ERROR = "error"
    DISABLED = "disabled"  # installed, but the user data was never applied
    ABSENT = "absent"  # not installed


@dataclass(frozen=True, kw_only=True)
class CloudInit:
    """What became of cloud-init on a host. `causes`: a line for each error or warning; `answer` is its own word."""

    outcome: CloudInitOutcome
    answer: str
    causes: tuple[str, ...] = ()
    boot_id: str = ""


_MARK = "deployer-report"

# A constant, on one line, without single quotes, exclamation marks and backslashes: it means the same in every login
# shell; printf, because some `echo` interpret the backslashes of JSON. While cloud-init is at work it watches
# cloud-init's own files for some seconds first: that spares an emulated machine a handshake and a Python start for each
# poll. A process left over in the final stage's control group is most often a reboot that cloud-init is about to ask
# for: the three seconds given to it keep us from calling that "done".
REPORT_COMMAND = (
    "exec sh -c '"
    f"echo; echo {_MARK} boot $(cat /proc/sys/kernel/random/boot_id 2>/dev/null);"
    " d=/run/cloud-init; n=0;"
    " while test -e $d/status.json -a $n -lt 10; do test -e $d/result.json && break; sleep 0.5; n=$((n+1)); done;"
    " c=/sys/fs/cgroup; n=0;"
    " while test $n -lt 6 && cat $c/system.slice/cloud-final.service/cgroup.procs"
    " $c/system.slice/cloud-init-main.service/cgroup.procs"
    " $c/systemd/system.slice/cloud-final.service/cgroup.procs 2>/dev/null | read -r p;"
    " do sleep 0.5; n=$((n+1)); done;"
    f' if test "$(systemctl is-system-running 2>/dev/null)" = stopping; then echo {_MARK} stopping; exit 0; fi;'
    f" command -v cloud-init >/dev/null 2>&1 || {{ echo {_MARK} absent; exit 0; }};"
    f" echo {_MARK} status;"
    ' out=$(cloud-init status --format json 2>/dev/null); test -n "$out" || out=$(cloud-init status --long 2>&1);'
    ' printf %s "$out"\''
)

LOG_COMMAND = (
    "exec sh -c 'f=/var/log/cloud-init-output.log; tail -c 8000 $f 2>/dev/null || sudo -n tail -c 8000 $f 2>/dev/null'"
)


def read_report(output: str) -> CloudInit:
    """What REPORT_COMMAND printed, decided. Never raises; what cannot be understood counts as still running."""
    boot_id, seen, lines = "", "", output.split("\n")
    for number, line in enumerate(lines):
        mark, _, rest = line.strip().partition(" ")
        if mark != _MARK:
            continue  # a login shell may print before us
        seen, _, value = rest.partition(" ")
        if seen == "boot":
            boot_id = one_line(value, 64)
        elif seen == "status":
            return decide("\n".join(lines[number + 1 :]), boot_id=boot_id)
    if seen == "absent":
        return CloudInit(outcome=CloudInitOutcome.ABSENT, answer="not installed", boot_id=boot_id)
    answer = "the machine is going down" if seen == "stopping" else "no report"
    return CloudInit(outcome=CloudInitOutcome.RUNNING, answer=answer, boot_id=boot_id)


def decide(report: str, *, boot_id: str = "") -> CloudInit:
    """The meaning of `cloud-init status --format json`, or of `--long` where a version before 22.4 has no JSON."""
    facts = _json(report) or _text(report)
    status = _word(facts.get("status"))
    extended = _word(facts.get("extended_status")) or status  # since 23.4
    stage = one_line(_word(facts.get("stage")), 40)
    answer = one_line(extended, 60) or f"not understood: {one_line(report, 80)}"

    def outcome(found: CloudInitOutcome, causes: Iterable[str] = ()) -> CloudInit:
        shown = f"{answer} ({stage})" if stage and found is CloudInitOutcome.RUNNING else answer
        kept = tuple(dict.fromkeys(one_line(cause, 400) for cause in causes))[:20]
        return CloudInit(outcome=found, answer=shown, causes=kept, boot_id=boot_id)

    if status == "disabled":
        return outcome(CloudInitOutcome.DISABLED)
    if status == "error" or extended.startswith("error"):
        # Before 23.4 an error is told as soon as it happens; only the stage says that the rest is still running.
        over = not extended.endswith(("running", "not started")) and not (stage and "extended_status" not in facts)
        return outcome(CloudInitOutcome.ERROR if over else CloudInitOutcome.RUNNING, _errors(facts))
    if extended in ("done", "degraded done"):
        warnings = _warnings(facts)
        if not warnings and extended == "done":
            return outcome(CloudInitOutcome.DONE)
        return outcome(CloudInitOutcome.DEGRADED, warnings or ("cloud-init does not say why",))
    return outcome(CloudInitOutcome.RUNNING)


def _json(report: str) -> Mapping[str, object]:
    start = report.find("{")
    if start < 0:
        return {}
    try:
        facts, _ = json.JSONDecoder(strict=False).raw_decode(report, start)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _text(report: str) -> Mapping[str, object]:
    facts: dict[str, object] = {}
    lines = report.splitlines()
    for number, line in enumerate(lines):
        key, colon, value = line.partition(":")
        if key == "detail" and colon:
            facts["detail"] = "\n".join([value, *lines[number + 1 :]])
            break  # the rest is free text
        if key in ("status", "extended_status") and colon:
            facts[key] = value.strip()
    return facts


def _word(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    items: list[object] = list(value) if isinstance(value, list) else []
    return [text for item in items if (text := str(item).strip())]


def _errors(facts: Mapping[str, object]) -> list[str]:
    """The errors listed; else those of each stage; else the serious recoverable ones; else the detail."""
    stages = [stage for stage in facts.values() if isinstance(stage, dict)]
    serious = [w for w in _warnings(facts) if w.startswith(("CRITICAL", "ERROR"))]
    detail = _word(facts.get("detail"))
    return (
        _texts(facts.get("errors"))
        or [error for stage in stages for error in _texts(stage.get("errors"))]
        or serious
        or ([detail] if detail and not detail.startswith("DataSource") else [])
        or ["cloud-init reports an error and names none"]
    )


def _warnings(facts: Mapping[str, object]) -> list[str]:
    levels = facts.get("recoverable_errors")
    if not isinstance(levels, dict):
        return []
    return [f"{level}: {text}" for level, texts in levels.items() for text in _texts(texts)]
