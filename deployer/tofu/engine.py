"""OpenTofu at work in one folder: init, validate, plan, apply, outputs, destroy. Knows no states and no Ansible.

python-terraform is used for its argv alone: running through it would buffer all output, and its constructor reads a
state file, which fails on the empty one that a crash can leave. So it is pointed at a folder that cannot exist.
"""

import json
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from python_terraform import IsFlagged, Terraform

from deployer.config.model import Timeouts
from deployer.errors import FailureKind, StepFailed
from deployer.events import Notice, ignore
from deployer.process import Context, Outcome, Request, Stream, run
from deployer.tofu.state import APPLYING, locked_by, look
from deployer.tofu.stream import Change, Decoder, Diagnostics, Plan, said

# Seconds to wait for OpenTofu's own state lock, which a hand-typed tofu may hold.
_LOCK_TIMEOUT = 120

_JSON = {"json": IsFlagged, "input": False}
_WAIT = {"lock_timeout": f"{_LOCK_TIMEOUT}s"}

# How long an orderly end may take after it was asked for, before it is asked for at once: what is in flight in a cloud
# cannot be hurried, and a second signal may lose state.
_GRACE = 600.0

# These would make our commands differ from the same ones typed by hand.
_UNWANTED = ("TF_CLI_ARGS", "TF_WORKSPACE", "TF_DATA_DIR", "TF_LOG", "TF_INPUT", "TF_REATTACH_PROVIDERS")


def tofu_environment(environ: Mapping[str, str], plugin_cache: Path) -> dict[str, str]:
    """The child's whole environment: the user's own (credentials of a cloud among it), without what alters commands."""
    # The cache in full: what is relative would start from the module's folder there.
    env = {**environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1", "DEPLOYER_CACHE": str(plugin_cache.parent)}
    if os.access(plugin_cache, os.W_OK):  # OpenTofu refuses one that is not there
        env.setdefault("TF_PLUGIN_CACHE_DIR", str(plugin_cache))
    return {key: value for key, value in env.items() if not key.startswith(_UNWANTED)}


@dataclass(frozen=True)
class Tofu:
    """One binary, working in one folder. Its commands raise StepFailed, and Interrupted where they were stopped."""

    binary: Path
    folder: Path
    limits: Timeouts
    context: Context
    veil: Callable[[str], str] = str  # for what it says: a diagnostic repeats whole commands, secrets and all

    def init(self) -> None:
        """Downloads providers and modules. Raises StepFailed."""
        with self._alone_at_plugins():
            # Never -json: OpenTofu has it since 1.9 only.
            self._streamed(self.limits.init, [], "init", input=False, no_color=IsFlagged)

    def _alone_at_plugins(self) -> AbstractContextManager[object]:
        """Two inits must not unpack one plugin at once: before 1.10 OpenTofu does not lock its plugin cache."""
        from filelock import FileLock, Timeout  # slow, and most commands do without

        cache, interrupts = self.context.environ.get("TF_PLUGIN_CACHE_DIR"), self.context.interrupts
        if not cache or not os.access(cache, os.W_OK):
            return nullcontext()
        lock = FileLock(Path(cache, ".lock"))
        try:
            return lock.acquire(timeout=self.limits.init, cancel_check=lambda: interrupts.count > 0)
        except Timeout:
            interrupts.check("waiting for the plugin cache")
            problem = f"another tofu init has had the plugin cache for {self.limits.init} s"
            raise StepFailed(problem, kind=FailureKind.TIMEOUT, detail=cache) from None

    def validate(self) -> None:
        """Raises StepFailed naming file, line and cause where the module is not valid."""
        outcome, text = self._document("validate")
        decoder = Decoder(self.context.report, self.veil)
        try:
            for found in Diagnostics.model_validate_json(text).diagnostics:
                decoder.diagnose(found)
        except ValidationError:
            raise decoder.failure("validate", self._last_words(outcome)) from None
        if decoder.errors:
            raise decoder.failure("validate the module", "")

    def is_valid(self) -> bool:
        """Whether the module is valid, and what init brings for it is there."""
        with suppress(StepFailed):
            self.validate()
            return True
        return False

    def plan(self, out: Path | None = None) -> Plan:
        """What an apply would do; saved to `out` where given. It takes no lock, and waits for none: OpenTofu refuses to
        apply what somebody else has made stale meanwhile."""
        question = {"detailed_exitcode": IsFlagged, "lock": False, "out": out}  # None is no option
        decoder, code = self._streamed(self.limits.plan, [], "plan", **_JSON, **question)
        # Exit code 2 with no resource change is a change of outputs alone: worth an apply, nothing to tell of.
        changes = decoder.planned if decoder.planned or code == 0 else [Change("outputs", "change")]
        imported = {change.address for change in changes if change.action == "import"}
        known = tuple(change.address for change in decoder.known if change.address not in imported)
        return Plan(tuple(sorted(changes, key=lambda change: change.address)), known)

    def drift(self) -> tuple[Change, ...]:
        """What is otherwise in reality than in OpenTofu's state (a refresh-only plan). Locks nothing."""
        return tuple(self._streamed(self.limits.plan, [], "plan", **_JSON, lock=False, refresh_only=IsFlagged)[0].drift)

    def apply(self, plan: Path, done: list[Change]) -> None:
        """Applies a saved plan, which is used up. What was done is in `done`, also where it fails or is stopped."""
        if look(self.folder).interrupted:
            (self.folder / "errored.tfstate").touch()  # our lock takes a killed one's note away, and the doubt stays
        self._streamed(self.limits.apply, done, "apply", str(plan.replace(self.folder / APPLYING)), **_JSON, **_WAIT)
        # An empty one is of an earlier apply: this one has found or made what that could not write down.
        if look(self.folder).errored is None:
            (self.folder / "errored.tfstate").unlink(missing_ok=True)

    def destroy(self) -> tuple[Change, ...]:
        """Takes everything away that the state knows. Where it fails, the rest is still in the state."""
        gone: list[Change] = []
        self._streamed(self.limits.destroy, gone, "destroy", **_JSON, auto_approve=IsFlagged, **_WAIT)
        return tuple(gone)

    def outputs(self) -> dict[str, Any]:
        """The values of the root module's outputs. Sensitive ones are in clear: never print them."""
        outcome, text = self._document("output")
        if outcome.returncode != 0:
            raise Decoder(ignore).failure("give its outputs", self._last_words(outcome))
        try:
            return {name: output["value"] for name, output in json.loads(text).items()}
        except ValueError:
            cause = "what it printed is no JSON, or longer than 1 MiB"
            raise StepFailed("OpenTofu's outputs cannot be read", kind=FailureKind.INPUT, detail=cause) from None

    def _document(self, command: str) -> tuple[Outcome, str]:
        """What it writes to stdout as a whole; told to nobody, since outputs may be secret."""
        lines: list[str] = []
        outcome = self._run(lines.append, self.limits.plan, command, json=IsFlagged)
        return outcome, "\n".join(lines)

    def _streamed(self, limit: float, done: list[Change], *words: str, **options: object) -> tuple[Decoder, int]:
        """What its lines tell while it is at work, and its exit code. Raises StepFailed where that is a failure; also
        then, what was done is in `done`."""
        decoder = Decoder(self.context.report, self.veil, done)
        if "lock_timeout" in options and (holder := locked_by(self.folder)):
            message = f"OpenTofu's state may be locked by {holder}; waiting up to {_LOCK_TIMEOUT} s for it"
            self.context.report(Notice(message=message, level="warning"))
        outcome = self._run(decoder.line, limit, *words, **options)
        fine = (0, 2) if words[0] == "plan" else (0,)  # 2: it would change something; of apply, a crash
        if outcome.returncode not in fine or decoder.errors:
            doing = "initialise" if words[0] == "init" else words[0]
            raise decoder.failure(doing, self._last_words(outcome))
        return decoder, outcome.returncode

    def _run(self, on_stdout: Callable[[str], None], limit: float, *words: str, **options: object) -> Outcome:
        # Not the methods named for the commands: its destroy() passes -force, which no longer exists.
        terraform = Terraform(working_dir="/dev/null/no-state-here", terraform_bin_path=str(self.binary))
        argv = tuple(terraform.generate_cmd_string(*words, **options))
        doing = f"tofu {words[0]}"

        def hear(stream: Stream, text: str) -> None:
            on_stdout(text) if stream == "stdout" else self.context.report(said(self.veil(text)))

        request = Request(argv=argv, doing=doing, cwd=self.folder, timeout=limit, grace=_GRACE)
        outcome = run(request, self.context, hear)
        if words[0] == "apply" and outcome.returncode in (0, 1):  # others are of a crash, or of a wrapper's
            # It ended by itself, and knows what it has made. The plan holds every variable's value, and is stale now.
            (self.folder / APPLYING).unlink(missing_ok=True)
        if outcome.interrupted:
            # Even where it came to a good end meanwhile: the user asked us to stop.
            end = f"{doing} ended with code {outcome.returncode} after {outcome.seconds:.0f} s"
            self.context.interrupts.check(doing, end)
        if outcome.timed_out:
            detail = f"the time limit in the configuration (timeouts) expired; {doing} was stopped in good order"
            raise StepFailed(f"{doing} took longer than {limit:.0f} s", kind=FailureKind.TIMEOUT, detail=detail)
        if killed := max(0, -outcome.returncode):  # what it said before, a warning for example, is not the cause
            detail = "perhaps by the system, out of memory (dmesg would say so)" if killed == signal.SIGKILL else ""
            name = {each.value: each.name for each in signal.Signals}.get(killed, f"signal {killed}")
            raise StepFailed(f"{doing} was killed by {name}", kind=FailureKind.TOFU, detail=detail)
        return outcome

    def _last_words(self, outcome: Outcome) -> str:
        # The first error may be the cause of the others, and one of the others may name the place.
        before, *errors = " ".join(line.strip("│╷╵ ") for line in outcome.tail).split("Error: ")
        words = " / ".join(dict.fromkeys(map(str.strip, errors))) or before[-600:].strip()  # init says some twice
        return self.veil(words) or f"it ended with code {outcome.returncode} and said nothing"
