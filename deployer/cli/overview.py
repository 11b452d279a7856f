"""An environment's overview (`show`) as text. Knows its fields, and no environment."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from deployer.cli.text import duration, indented, moment


def finished_text(overview: Mapping[str, Any], seconds: float) -> str:
    """What a command leaves behind: the state, how long it took, the machines, and what to type next."""
    took = f", in {duration(seconds)}" if seconds >= 1 else ""
    rows = [*_host_rows(overview), *(("next", command) for command in overview["next_commands"])]
    return "\n".join([f"{overview['name']}: {overview['state']}{took}", *_aligned(rows)])


def show_text(overview: Mapping[str, Any], spelled: Callable[[str], str] = str) -> str:
    """Everything a person needs, the next command last; `spelled` makes commands such that they can be pasted."""
    failure, holder = overview["failure"] or {}, overview["busy"] or {}
    directory = shlex.quote(str(overview["tofu_directory"]))
    at = f"at {overview['step']}" if overview["step"] else "between two steps"
    doing = " at ".join(filter(None, (holder.get("command"), holder.get("step"))))
    doing += " (ended; what it started goes on)" if holder.get("alive") is False else ""
    # The command, and the tools that it has started.
    workers = [holder | {"doing": doing}, *holder["children"]] if holder else []
    rows = [
        ("state", f"{overview['state']}, interrupted {at}" if overview["interrupted"] else overview["state"]),
        *(("busy", f"{worker['doing']}, pid {worker['pid']}, since {worker['since']}") for worker in workers),
        ("failed at", "{step} ({kind})".format(**failure) if failure else ""),
        ("cause", failure.get("cause", "")),
        ("changed", moment(overview["changed_at"])),
        ("created", moment(overview["created_at"])),
        ("provider", overview["provider"]),
        ("playbooks", ", ".join(overview["playbooks"]) or "none"),
        ("resources", overview["resources"]),
        *_host_rows(overview),
        *(("done", f"{step['name']}  {duration(step['seconds'])}") for step in overview["steps"]),
        *(("reality", line) for line in overview["reality"]),
        ("log", overview["log"] or "none"),
        ("by hand", spelled(f"cd {directory} && tofu destroy") if overview["resources"] != "none" else ""),
        *(("next", command) for command in overview["next_commands"]),
    ]
    return "\n".join([overview["name"], *_aligned(rows)])


def _aligned(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    before = ""
    for label, value in rows:
        if value:
            yield f"  {label if label != before else '':<10} {indented(value, ' ' * 13)}"
            before = label


def _host_rows(overview: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, host in overview["hosts"].items():
        forwards = [_forward(port["host"], port["machine"]) for port in host["ports"]]
        yield "host", "  ".join([f"{name}  {host['user']}@{host['address']} port {host['port']}", *forwards])


def _forward(here: int, there: int) -> str:
    return f"http://127.0.0.1:{here}" if there == 80 else f"127.0.0.1:{here} -> {there}"
