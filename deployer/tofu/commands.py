"""The command lines of OpenTofu, as values, built by python-terraform. Runs nothing.

python-terraform is used for its argv alone: running through it would buffer all output, and its constructor reads a
state file, which fails on the empty one that a crash can leave. So it is pointed at a folder that cannot exist.
"""

from __future__ import annotations

from pathlib import Path

from python_terraform import IsFlagged, Terraform

_NOWHERE = "/dev/null/no-state-here"

# Seconds to wait for OpenTofu's own state lock, which a hand-typed tofu may hold.
LOCK_TIMEOUT = 120

_JSON = {"json": IsFlagged, "input": False}
_WAIT = {"lock_timeout": f"{LOCK_TIMEOUT}s"}


class Commands:
    """argv builders for one binary."""

    def __init__(self, binary: Path) -> None:
        self._terraform = Terraform(working_dir=_NOWHERE, terraform_bin_path=str(binary))

    def init(self) -> tuple[str, ...]:
        # Never -json: OpenTofu has it since 1.9 only.
        return self._argv("init", input=False, no_color=IsFlagged)

    def validate(self) -> tuple[str, ...]:
        return self._argv("validate", json=IsFlagged)

    def plan(self, out: Path | None = None, *, refresh_only: bool = False) -> tuple[str, ...]:
        # Without `out` it is a question: it takes no lock, and waits for none.
        locking = _WAIT if out else {"lock": False}
        refresh = IsFlagged if refresh_only else None
        return self._argv("plan", **_JSON, detailed_exitcode=IsFlagged, **locking, out=out, refresh_only=refresh)

    def apply(self, plan: Path) -> tuple[str, ...]:
        return self._argv("apply", str(plan), **_JSON, **_WAIT)

    def output(self) -> tuple[str, ...]:
        return self._argv("output", json=IsFlagged)

    def destroy(self) -> tuple[str, ...]:
        # Not python-terraform's own destroy(): it passes -force, which no longer exists.
        return self._argv("destroy", **_JSON, auto_approve=IsFlagged, **_WAIT)

    def _argv(self, command: str, *arguments: str, **options: object) -> tuple[str, ...]:
        return tuple(self._terraform.generate_cmd_string(command, *arguments, **options))
