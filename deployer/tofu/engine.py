"""OpenTofu at work in one folder: init, validate, plan, apply, outputs, destroy. Knows no states and no Ansible."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployer.config.model import Timeouts
from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.events import Notice, Output, Report, printable
from deployer.process import Interrupts, Outcome, Register, Request, Stream, run
from deployer.tofu.commands import Commands
from deployer.tofu.state import locked_by
from deployer.tofu.stream import Change, Decoder, Plan, decode_diagnostic, diagnosed, one_line

# Seconds to wait for OpenTofu's own state lock, which a hand-typed tofu may hold.
LOCK_TIMEOUT = 120
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


class Tofu:
    """One binary, working in one folder."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        *,
        env: Mapping[str, str],
        limits: Timeouts,
        interrupts: Interrupts,
        report: Report,
        register: Register | None,
    ) -> None:
        self.folder = folder
        self._commands = Commands(binary, lock_timeout=LOCK_TIMEOUT)
        self._env = env
        self._limits = limits
        self._interrupts = interrupts
        self._report = report
        self._register = register

    def init(self) -> None:
        """Downloads providers and modules. Raises StepFailed, with what `validate` finds where it finds something."""
        outcome, text = self._plain("init", self._commands.init(), self._limits.init)
        if outcome.returncode != 0:
            diagnosis = self._diagnose()
            raise diagnosis or StepFailed(
                "OpenTofu failed to initialise", kind=FailureKind.TOFU, detail=_last_words(outcome, text)
            )

    def validate(self) -> None:
        """Raises StepFailed naming file, line and cause where the module is not valid."""
        if (failure := self._diagnose()) is not None:
            raise failure

    def plan(self, out: Path | None = None, *, lock: bool = True) -> Plan:
        """What an apply would do; saved to `out` where given. Raises StepFailed."""
        decoder, outcome = self._streamed("plan", self._commands.plan(out, lock=lock), self._limits.plan)
        if outcome.returncode not in (0, 2):
            raise decoder.failure("plan", _last_words(outcome))
        # Exit code 2 with no resource change is a change of outputs alone: worth an apply, nothing to tell of.
        return Plan(tuple(decoder.planned)) if decoder.planned or outcome.returncode == 0 else _OUTPUTS_CHANGE

    def drift(self) -> tuple[Change, ...]:
        """What is otherwise in reality than in OpenTofu's state (a refresh-only plan). Changes nothing."""
        argv = self._commands.plan(None, lock=False, refresh_only=True)
        decoder, outcome = self._streamed("look", argv, self._limits.plan)
        if outcome.returncode not in (0, 2):
            raise decoder.failure("compare with reality", _last_words(outcome))
        return tuple(decoder.drift)

    def apply(self, plan: Path) -> tuple[Change, ...]:
        """Applies a saved plan and returns what was done. Raises StepFailed; part of it may be done then."""
        decoder, outcome = self._streamed("apply", self._commands.apply(plan), self._limits.apply)
        if outcome.returncode != 0:
            raise decoder.failure("apply", _last_words(outcome))
        return tuple(decoder.applied)

    def destroy(self) -> tuple[Change, ...]:
        """Takes everything away that the state knows. Raises StepFailed; the rest is still in the state then."""
        decoder, outcome = self._streamed("destroy", self._commands.destroy(), self._limits.destroy)
        if outcome.returncode != 0:
            raise decoder.failure("destroy", _last_words(outcome))
        return tuple(decoder.applied)

    def outputs(self) -> dict[str, Any]:
        """The values of the root module's outputs. Raises StepFailed. Sensitive ones are in clear: never print them."""
        outcome, text = self._plain("output", self._commands.output(), self._limits.plan, quiet=True)
        try:
            if outcome.returncode == 0:
                return {name: output["value"] for name, output in json.loads(text).items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        raise StepFailed("OpenTofu gave no outputs", kind=FailureKind.TOFU, detail=_last_words(outcome))

    def resources(self) -> tuple[str, ...]:
        """Addresses of what the state knows. Raises StepFailed."""
        outcome, text = self._plain("state list", self._commands.state_list(), self._limits.plan, quiet=True)
        if outcome.returncode != 0:
            raise StepFailed("OpenTofu cannot read its state", kind=FailureKind.TOFU, detail=_last_words(outcome))
        return tuple(printable(line) for line in text.splitlines() if line)

    def _diagnose(self) -> StepFailed | None:
        outcome, text = self._plain("validate", self._commands.validate(), self._limits.plan, quiet=True)
        try:
            found = [decode_diagnostic(d) for d in json.loads(text)["diagnostics"]]
        except (ValueError, TypeError, KeyError, AttributeError):
            return StepFailed("OpenTofu failed to validate", kind=FailureKind.TOFU, detail=_last_words(outcome))
        for warning in (d for d in found if d.severity == "warning"):
            self._report(Notice(message=f"OpenTofu warns: {warning.line}", level="warning"))
        errors = [d for d in found if d.severity == "error"]
        for error in errors:  # validate is quiet, and the message below says that the log has them all
            self._report(_output(f"error: {error.line}"))
        return diagnosed(errors, "validate the module", "") if errors else None

    def _streamed(self, name: str, argv: tuple[str, ...], limit: float) -> tuple[Decoder, Outcome]:
        decoder = Decoder()

        def on_line(stream: Stream, text: str) -> None:
            for event in decoder.line(text) if stream == "stdout" else (_output(text),):
                self._report(event)

        if holder := locked_by(self.folder):
            message = f"OpenTofu's state may be locked by {holder}; waiting up to {LOCK_TIMEOUT} s for it"
            self._report(Notice(message=message, level="warning"))
        return decoder, self._run(name, argv, limit, on_line)

    def _plain(self, name: str, argv: tuple[str, ...], limit: float, *, quiet: bool = False) -> tuple[Outcome, str]:
        lines: list[str] = []

        def on_line(stream: Stream, text: str) -> None:
            if stream == "stdout":
                lines.append(text)
            if stream == "stderr" or not quiet:  # outputs may be secret
                self._report(_output(text))

        return self._run(name, argv, limit, on_line), "\n".join(lines)

    def _run(self, name: str, argv: tuple[str, ...], limit: float, on_line: Any) -> Outcome:
        doing = f"tofu {name}"

        def stopping(level: int, seconds: float) -> None:
            self._report(Notice(message=_STOPPING[level].format(doing=doing, seconds=round(seconds)), level="warning"))

        request = Request(argv=argv, doing=doing, cwd=self.folder, env=self._env, timeout=limit, grace=_GRACE)
        outcome = run(
            request, interrupts=self._interrupts, on_line=on_line, register=self._register, on_stopping=stopping
        )
        if outcome.interrupted:
            # Even where it came to a good end meanwhile: the user asked us to stop.
            raise Interrupted(
                f"interrupted by {self._interrupts.signum.name} during {doing}",
                signum=self._interrupts.signum,
                detail=f"{doing} ended with code {outcome.returncode} after {outcome.seconds:.0f} s",
            )
        if outcome.timed_out:
            raise StepFailed(
                f"{doing} took longer than {limit:.0f} s",
                kind=FailureKind.TIMEOUT,
                detail=f"the time limit in the configuration (timeouts) expired; {doing} was stopped in good order",
            )
        return outcome


_OUTPUTS_CHANGE = Plan((Change("outputs", "change"),))
_STOPPING = {
    1: "asked {doing} to stop (it runs since {seconds} s) and wait for it to finish what is in flight; "
    "once more stops it at once, and may lose track of what is being made",
    2: "asked {doing} to stop at once; what was in flight may exist without being in OpenTofu's state",
    3: "killed {doing}; what was in flight may exist without being in OpenTofu's state",
}


def _output(text: str) -> Output:
    return Output(source="tofu", line=printable(text))


def _last_words(outcome: Outcome, text: str = "") -> str:
    said = [line for line in outcome.tail if line.strip()] or [line for line in text.splitlines() if line.strip()]
    words = one_line(" ".join(_framed(line) for line in said[-6:]))
    return words or f"it ended with code {outcome.returncode} and said nothing"


def _framed(line: str) -> str:
    return line.strip().strip("│╷╵").strip()
