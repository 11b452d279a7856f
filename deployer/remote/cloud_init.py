"""What cloud-init's own report means. Decides from text alone; runs nothing and knows no time."""

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from deployer.events import one_line


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


# A constant, on one line, without single quotes, exclamation marks and backslashes: it means the same in every login
# shell. While cloud-init is at work it watches cloud-init's own files for some seconds first: that spares an emulated
# machine a handshake and a Python start for each poll. A process left over in the final stage's control group is most
# often a reboot that cloud-init is about to ask for: the three seconds given to it keep us from calling that "done".
# The sync is for a machine that loses its power soon after: it came back with empty host keys, and let nobody in.
REPORT_COMMAND = (
    "exec sh -c 'd=/run/cloud-init; n=0;"
    " while test -e $d/status.json -a $n -lt 10; do test -e $d/result.json && break; sleep 0.5; n=$((n+1)); done; n=0;"
    " for c in /sys/fs/cgroup /sys/fs/cgroup/systemd; do"  # the second is where version 1 of control groups has it
    " while test $n -lt 6 && cat $c/system.slice/cloud-final.service/cgroup.procs"
    " $c/system.slice/cloud-init-main.service/cgroup.procs 2>/dev/null | read -r p; do sleep 0.5; n=$((n+1)); done;"
    ' done; s="too old, no JSON";'
    " command -v cloud-init >/dev/null || s=absent;"
    ' test "$(systemctl is-system-running 2>/dev/null)" = stopping && s="going down";'
    ' test -e $d/result.json && sync; echo; echo "deployer-report $s";'
    " case $s in too*) cloud-init status --format json 2>/dev/null ;; esac; exit 0'"
)
_REPORT = re.compile(r"^deployer-report (.*)$", re.MULTILINE)  # a login shell may print before us

LOG_COMMAND = (
    "exec sh -c 'f=/var/log/cloud-init-output.log; tail -c 8000 $f 2>/dev/null || sudo -n tail -c 8000 $f 2>/dev/null'"
)


def read_report(output: str) -> CloudInit:
    """What REPORT_COMMAND printed, decided. Never raises; what cannot be understood counts as still running."""
    found = _REPORT.search(output)
    return decide(output[found.end() :], found[1]) if found else decide("", "no report")


def decide(report: str, word: str = "no JSON") -> CloudInit:
    """The meaning of `cloud-init status --format json`, or of our own `word` where there is no JSON."""
    facts = _json(report) or {"status": word}
    status, extended, stage = (str(facts.get(key) or "") for key in ("status", "extended_status", "stage"))
    answer = one_line(extended or status, 60)
    causes, levels = _texts(facts.get("errors")), facts.get("recoverable_errors")
    levels = levels if isinstance(levels, dict) else {}
    warnings = [f"{level}: {text}" for level, texts in levels.items() for text in _texts(texts)]
    # Before 23.4 an error is told as soon as it happens; only the stage says that the rest is still running.
    going_on = extended.endswith(("running", "not started")) or (stage and not extended)
    outcome = CloudInitOutcome.RUNNING
    if status in ("disabled", "absent"):
        outcome, causes = CloudInitOutcome(status), []
    elif status == "error" and not going_on:
        outcome = CloudInitOutcome.ERROR
        serious = [w for w in warnings if w.startswith(("CRITICAL", "ERROR"))]
        causes = causes or serious or ["cloud-init reports an error and names none"]
    elif "degraded done" in (status, extended) or (status == "done" and warnings):
        outcome, causes = CloudInitOutcome.DEGRADED, warnings or ["cloud-init does not say why"]
    elif status == "done":
        outcome, causes = CloudInitOutcome.DONE, []
    elif stage:
        answer += f" ({one_line(stage, 40)})"
    kept = tuple(dict.fromkeys(one_line(cause, 400) for cause in causes))[:20]
    return CloudInit(outcome=outcome, answer=answer, causes=kept)


def _json(report: str) -> dict[str, Any]:
    try:
        # From the first brace on, as warnings may come before; machines put control characters into their strings.
        facts, _ = json.JSONDecoder(strict=False).raw_decode(report, max(0, report.find("{")))
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _texts(value: object) -> list[str]:
    return [str(item) for item in value if item] if isinstance(value, list) else []
