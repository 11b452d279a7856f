"""The command lines of OpenTofu, as values, built by python-terraform. Runs nothing.

python-terraform is used for its argv alone: running through it would buffer all output, and its constructor reads a
state file, which fails on the empty one that a crash can leave. So it is pointed at a folder that cannot exist.
"""

from __future__ import annotations

from pathlib import Path

from python_terraform import IsFlagged, Terraform

_NOWHERE = "/dev/null/no-state-here"


_JSON = {"json": IsFlagged, "input": False}


class Commands:
    """argv builders for one binary. `lock_timeout` is in seconds: how long to wait for OpenTofu's own state lock."""

    def __init__(self, binary: Path, *, lock_timeout: int) -> None:
        self._terraform = Terraform(working_dir=_NOWHERE, terraform_bin_path=str(binary))
        self._wait = f"{lock_timeout}s"

    def init(self) -> tuple[str, ...]:
        # Never -json: OpenTofu has it since 1.9 only.
        return self._argv("init", input=False, no_color=IsFlagged)

    def validate(self) -> tuple[str, ...]:
        return self._argv("validate", json=IsFlagged)

    def plan(self, out: Path | None, *, lock: bool = True, refresh_only: bool = False) -> tuple[str, ...]:
        locking = {"lock_timeout": self._wait} if lock else {"lock": False}
        refresh = IsFlagged if refresh_only else None
        return self._argv("plan", **_JSON, detailed_exitcode=IsFlagged, **locking, out=out, refresh_only=refresh)

    def apply(self, plan: Path) -> tuple[str, ...]:
        return self._argv("apply", str(plan), **_JSON, lock_timeout=self._wait)

    def output(self) -> tuple[str, ...]:
        return self._argv("output", json=IsFlagged)

    def destroy(self) -> tuple[str, ...]:
        # Not python-terraform's own destroy(): it passes -force, which no longer exists.
        return self._argv("destroy", **_JSON, auto_approve=IsFlagged, lock_timeout=self._wait)

    def _argv(self, command: str, *arguments: str, **options: object) -> tuple[str, ...]:
        return tuple(self._terraform.generate_cmd_string(command, *arguments, **options))
