"""OpenTofu at work in one folder: init, validate, plan, apply, outputs, destroy. Knows no states and no Ansible."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployer.config.model import Timeouts
from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.events import Notice, Report, ignore
from deployer.process import Interrupts, Outcome, Register, Request, Stream, run
from deployer.tofu.commands import LOCK_TIMEOUT, Commands
from deployer.tofu.state import locked_by
from deployer.tofu.stream import Change, Decoder, Diagnostics, Plan, said

# How long an orderly end may take after it was asked for, before it is asked for at once: what is in flight in a cloud
# cannot be hurried, and a second signal may lose state.
_GRACE = 600.0

# These would make our commands differ from the same ones typed by hand.
_UNWANTED = ("TF_CLI_ARGS", "TF_WORKSPACE", "TF_DATA_DIR", "TF_LOG", "TF_INPUT", "TF_REATTACH_PROVIDERS")


def tofu_environment(environ: Mapping[str, str], plugin_cache: Path) -> dict[str, str]:
    """The child's whole environment: the user's own (credentials of a cloud among it), without what alters commands."""
    env = {k: v for k, v in environ.items() if not k.startswith(_UNWANTED)}
    env |= {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
    env.setdefault("TF_PLUGIN_CACHE_DIR", str(plugin_cache))
    return env


@dataclass(frozen=True)
class Tofu:
    """One binary, working in one folder. Its commands raise StepFailed, and Interrupted where they were stopped."""

    binary: Path
    folder: Path
    _: KW_ONLY
    env: Mapping[str, str] = field(repr=False)  # may hold secrets
    limits: Timeouts
    interrupts: Interrupts
    report: Report
    register: Register | None

    def init(self) -> None:
        """Downloads providers and modules. Raises StepFailed, with what `validate` finds where it finds something."""
        argv = self._commands.init()
        outcome = self._run("init", argv, self.limits.init, lambda text: self.report(said(text)))
        if outcome.returncode != 0:
            self.validate()
            raise _failed("initialise", outcome)

    def validate(self) -> None:
        """Raises StepFailed naming file, line and cause where the module is not valid."""
        outcome, text = self._document("validate", self._commands.validate())
        decoder = Decoder(self.report)
        try:
            for found in Diagnostics.model_validate_json(text).diagnostics:
                decoder.diagnose(found)
        except ValidationError:
            raise _failed("validate", outcome) from None
        if decoder.errors:
            raise decoder.failure("validate the module", "")

    def plan(self, out: Path | None = None) -> Plan:
        """What an apply would do; saved to `out` where given. Without it, nothing is locked."""
        argv = self._commands.plan(out)
        decoder, code = self._streamed("plan", argv, self.limits.plan)
        # Exit code 2 with no resource change is a change of outputs alone: worth an apply, nothing to tell of.
        return Plan(tuple(decoder.planned)) if decoder.planned or code == 0 else _OUTPUTS_CHANGE

    def drift(self) -> tuple[Change, ...]:
        """What is otherwise in reality than in OpenTofu's state (a refresh-only plan). Changes nothing."""
        argv = self._commands.plan(refresh_only=True)
        return tuple(self._streamed("refresh", argv, self.limits.plan)[0].drift)

    def apply(self, plan: Path) -> tuple[Change, ...]:
        """Applies a saved plan and returns what was done. Where it fails, part of it may be done."""
        return tuple(self._streamed("apply", self._commands.apply(plan), self.limits.apply)[0].applied)

    def destroy(self) -> tuple[Change, ...]:
        """Takes everything away that the state knows. Where it fails, the rest is still in the state."""
        return tuple(self._streamed("destroy", self._commands.destroy(), self.limits.destroy)[0].applied)

    def outputs(self) -> dict[str, Any]:
        """The values of the root module's outputs. Sensitive ones are in clear: never print them."""
        outcome, text = self._document("output", self._commands.output())
        if outcome.returncode != 0:
            raise _failed("give its outputs", outcome)
        return {name: output["value"] for name, output in json.loads(text).items()}

    @property
    def _commands(self) -> Commands:
        return Commands(self.binary)

    def _document(self, name: str, argv: tuple[str, ...]) -> tuple[Outcome, str]:
        """What it writes to stdout as a whole; told to nobody, since outputs may be secret."""
        lines: list[str] = []
        outcome = self._run(name, argv, self.limits.plan, lines.append)
        return outcome, "\n".join(lines)

    def _streamed(self, name: str, argv: tuple[str, ...], limit: float) -> tuple[Decoder, int]:
        decoder = Decoder(self.report)
        if holder := locked_by(self.folder):
            self._warn(f"OpenTofu's state may be locked by {holder}; waiting up to {LOCK_TIMEOUT} s for it")
        outcome = self._run(name, argv, limit, decoder.line)
        fine = (0, 2) if name in ("plan", "refresh") else (0,)  # 2: it would change something; of apply, a crash
        if outcome.returncode not in fine:
            raise decoder.failure(name, _last_words(outcome))
        return decoder, outcome.returncode

    def _run(self, name: str, argv: tuple[str, ...], limit: float, on_stdout: Callable[[str], None]) -> Outcome:
        doing = f"tofu {name}"

        def on_line(stream: Stream, text: str) -> None:
            on_stdout(text) if stream == "stdout" else self.report(said(text))

        def on_stopping(level: int, seconds: float) -> None:
            told = _STOPPING if level == 1 else _STOPPING_AT_ONCE
            self._warn(told.format(doing=doing, seconds=round(seconds)))

        outcome = run(
            Request(argv=argv, doing=doing, cwd=self.folder, env=self.env, timeout=limit, grace=_GRACE),
            interrupts=self.interrupts,
            on_line=on_line,
            register=self.register,
            on_stopping=on_stopping,
        )
        if outcome.interrupted:
            # Even where it came to a good end meanwhile: the user asked us to stop.
            signum = self.interrupts.signum
            detail = f"{doing} ended with code {outcome.returncode} after {outcome.seconds:.0f} s"
            raise Interrupted(f"interrupted by {signum.name} during {doing}", signum=signum, detail=detail)
        if outcome.timed_out:
            detail = f"the time limit in the configuration (timeouts) expired; {doing} was stopped in good order"
            raise StepFailed(f"{doing} took longer than {limit:.0f} s", kind=FailureKind.TIMEOUT, detail=detail)
        return outcome

    def _warn(self, message: str) -> None:
        self.report(Notice(message=message, level="warning"))


_OUTPUTS_CHANGE = Plan((Change("outputs", "change"),))
_STOPPING = (
    "asked {doing} to stop (it runs since {seconds} s) and wait for it to finish what is in flight; "
    "once more stops it at once, and may lose track of what is being made"
)
_STOPPING_AT_ONCE = "stopping {doing} at once; what was in flight may exist without being in OpenTofu's state"


def _failed(doing: str, outcome: Outcome) -> StepFailed:
    return Decoder(ignore).failure(doing, _last_words(outcome))


def _last_words(outcome: Outcome) -> str:
    words = " ".join(line.strip("│╷╵ ") for line in outcome.tail[-6:])
    return words.strip() or f"it ended with code {outcome.returncode} and said nothing"
