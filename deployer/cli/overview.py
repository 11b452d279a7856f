"""An environment's overview (`show`) as text. Knows its fields, and no environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from deployer.cli.text import duration, indented, moment

_WEB = {80: "http", 443: "https", 3000: "http", 8000: "http", 8080: "http", 8443: "https"}


def finished_text(overview: Mapping[str, Any], took: str) -> str:
    """What a command leaves behind: the state, how long it took, the machines, and what to type next."""
    lines = [f"{overview['name']}: {overview['state']}" + (f", in {took}" if took else "")]
    lines += _aligned([("host", line) for line in _host_lines(overview)])
    lines += _aligned([("next", command) for command in overview["next_commands"]])
    return "\n".join(lines)


def hosts_text(overview: Mapping[str, Any]) -> str:
    """What exists, in a few words."""
    hosts = overview["hosts"]
    if hosts:
        return "its machines: " + ", ".join(f"{name} ({host['address']})" for name, host in hosts.items())
    return {"none": "nothing has been made", "possible": "machines may exist"}.get(
        str(overview["resources"]), "its machines exist"
    )


def show_text(overview: Mapping[str, Any]) -> str:
    """Everything a person needs, the next command last."""
    rows: list[tuple[str, str]] = [("state", _state(overview))]
    busy, failure = overview.get("busy"), overview.get("failure")
    if busy:
        rows.append(("busy", ", ".join(f"{key} {value}" for key, value in busy.items() if value not in (None, ""))))
    if failure:
        rows += [("failed at", f"{failure['step']} ({failure['kind']})"), ("cause", failure["cause"])]
    rows += [
        ("changed", moment(overview["changed_at"])),
        ("created", moment(overview["created_at"])),
        ("provider", overview["provider"]),
        ("playbooks", ", ".join(overview["playbooks"]) or "none"),
        ("resources", overview["resources"]),
    ]
    rows += [("host", line) for line in _host_lines(overview)]
    rows += [("done", f"{step['name']}  {duration(step['seconds'])}") for step in overview.get("steps") or ()]
    rows += [("reality", line) for line in overview.get("reality") or ()]
    rows.append(("log", overview.get("log") or "none"))
    if overview["resources"] != "none":
        rows.append(("by hand", f"cd {shlex.quote(str(overview['tofu_directory']))} && tofu destroy"))
    rows += [("next", command) for command in overview["next_commands"]]
    return "\n".join([f"{overview['name']}", *_aligned(rows)])


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    lines: list[str] = []
    before = ""
    for label, value in rows:
        shown = label if label != before else ""
        lines.append(f"  {shown:<10} {indented(str(value), ' ' * 13)}")
        before = label
    return lines


def _state(overview: Mapping[str, Any]) -> str:
    state, step = str(overview["state"]), overview.get("step")
    if overview.get("interrupted"):
        return f"{state}, interrupted" + (f" at {step}" if step else " between two steps")
    return f"{state}, at {step}" if step and overview.get("busy") else state


def _host_lines(overview: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, host in overview["hosts"].items():
        forwards = [_forward(int(port["host"]), int(port["machine"])) for port in host.get("ports") or ()]
        lines.append("  ".join([f"{name}  {host['user']}@{host['address']} port {host['port']}", *forwards]))
    return lines


def _forward(here: int, there: int) -> str:
    scheme = _WEB.get(there)
    return f"{scheme}://127.0.0.1:{here}" if scheme else f"127.0.0.1:{here} -> {there}"
