"""The command lines of OpenTofu, as values, built by python-terraform. Runs nothing.

python-terraform is used for its argv alone: running through it would buffer all output, and its constructor reads a
state file, which fails on the empty one that a crash can leave. So it is pointed at a folder that cannot exist.
"""

from __future__ import annotations

from pathlib import Path

from python_terraform import IsFlagged, Terraform

_NOWHERE = "/dev/null/no-state-here"


class Commands:
    """argv builders for one binary. `lock_timeout` is in seconds: how long to wait for OpenTofu's own state lock."""

    def __init__(self, binary: Path, *, lock_timeout: int) -> None:
        self._build = Terraform(working_dir=_NOWHERE, terraform_bin_path=str(binary)).generate_cmd_string
        self._lock_timeout = f"{lock_timeout}s"

    def init(self) -> tuple[str, ...]:
        # Never -json: OpenTofu has it since 1.9 only.
        return tuple(self._build("init", input=False, no_color=IsFlagged))

    def validate(self) -> tuple[str, ...]:
        return tuple(self._build("validate", json=IsFlagged))

    def plan(self, out: Path | None, *, lock: bool = True, refresh_only: bool = False) -> tuple[str, ...]:
        options = {"json": IsFlagged, "input": False, "detailed_exitcode": IsFlagged}
        options |= {"lock_timeout": self._lock_timeout} if lock else {"lock": False}
        if out is not None:
            options["out"] = str(out)
        if refresh_only:
            options["refresh_only"] = IsFlagged
        return tuple(self._build("plan", **options))

    def apply(self, plan: Path) -> tuple[str, ...]:
        return tuple(self._build("apply", str(plan), json=IsFlagged, input=False, lock_timeout=self._lock_timeout))

    def output(self) -> tuple[str, ...]:
        return tuple(self._build("output", json=IsFlagged))

    def destroy(self) -> tuple[str, ...]:
        # Not python-terraform's own destroy(): it passes -force, which no longer exists.
        return tuple(
            self._build("destroy", json=IsFlagged, input=False, auto_approve=IsFlagged, lock_timeout=self._lock_timeout)
        )

    def state_list(self) -> tuple[str, ...]:
        return tuple(self._build("state list"))
