"""The exception tree: every error that `deployer` raises on purpose.

An error is data (a code, four sentences, an exit code). This module refuses to know how errors are rendered.

    DeployerError
    ├── InvalidInput       2   the command line or an argument is wrong
    │   ├── InvalidSpec        the configuration file is wrong, with file and line
    │   ├── UnknownEnvironment no environment of that name in this home
    │   └── Declined           a question was answered no, or could not be asked
    ├── WrongState         3   the command may not start from the environment's state
    ├── Locked             4   another process works on the environment
    ├── UnreadableState    5   the state file is damaged or of another shape
    ├── ToolMissing        6   a program is missing or too old
    ├── StepFailed         1   a step of a command failed; the state names it
    ├── StorageFailed      1   the home or a file in it cannot be read or written
    └── Interrupted      130   Ctrl+C (143: SIGTERM, 129: SIGHUP); the state stays in progress
"""

import signal
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, TypedDict, Unpack


class FailureKind(StrEnum):
    """Why a step failed, in one word; persisted in failed states."""

    INPUT = "input"  # what the user gave cannot be used: a missing playbook, a module without outputs
    TOOL = "tool"  # a program is missing, too old, or died in an unforeseen way
    TOFU = "tofu"  # OpenTofu reported an error
    UNREACHABLE = "unreachable"  # no connection, no SSH banner
    AUTHENTICATION = "authentication"  # SSH refused our key, or the host key has changed
    CLOUD_INIT = "cloud_init"  # cloud-init reported an error, or never ran
    PLAYBOOK = "playbook"  # Ansible reported a failed or unreachable host
    TIMEOUT = "timeout"  # a time limit of the configuration expired
    STORAGE = "storage"  # a disk said no
    INTERNAL = "internal"  # a defect of deployer itself


class Said(TypedDict, total=False):
    """What an error of any kind may say besides its message (DeployerError tells what each sentence is for)."""

    detail: str
    remains: str
    help: str


class DeployerError(Exception):
    """What happened to what (`message`), why (`detail`), what remains true (`remains`), what to type (`help`)."""

    code: ClassVar[str] = "error"
    exit_code: int = 1
    untouched: ClassVar[str] = ""  # what remains true where the raiser says nothing else
    facts: ClassVar[tuple[str, ...]] = ("code", "message", "detail", "remains", "help", "exit_code")

    def __init__(self, message: str, *, detail: str = "", remains: str = "", help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.remains = remains or self.untouched
        self.help = help

    def __str__(self) -> str:
        return f"{self.message}: {self.detail}" if self.detail else self.message

    def as_dict(self) -> dict[str, object]:
        """The error as JSON-ready data: its `facts`."""
        return {name: getattr(self, name) for name in self.facts}


class InvalidInput(DeployerError):
    code = "invalid_input"
    exit_code = 2
    untouched = "Nothing was changed."


class InvalidSpec(InvalidInput):
    """A configuration file that cannot be used; `complaints` has one line for each field, with file and line."""

    code = "invalid_spec"
    facts = (*DeployerError.facts, "complaints")

    def __init__(self, message: str, *, complaints: Sequence[str], remains: str = "", help: str = "") -> None:
        super().__init__(message, detail="\n".join(complaints), remains=remains, help=help)
        self.complaints = list(complaints)


class UnknownEnvironment(InvalidInput):
    code = "unknown_environment"


class Declined(InvalidInput):
    code = "declined"


class WrongState(DeployerError):
    code = "wrong_state"
    exit_code = 3
    untouched = "Nothing was changed."


class Locked(DeployerError):
    """Somebody else holds the environment; `holder` has the facts of the lock's record, as far as they are known."""

    code = "locked"
    exit_code = 4
    untouched = "Nothing was changed by this command."
    facts = (*DeployerError.facts, "holder")

    def __init__(self, message: str, *, holder: Mapping[str, object] | None = None, **said: Unpack[Said]) -> None:
        super().__init__(message, **said)
        self.holder = dict(holder or {})


class UnreadableState(DeployerError):
    code = "unreadable_state"
    exit_code = 5


class ToolMissing(DeployerError):
    code = "tool_missing"
    exit_code = 6
    untouched = "Nothing was changed."


class StorageFailed(DeployerError):
    code = "storage_failed"


class StepFailed(DeployerError):
    """A step failed; `kind` and the one-line `detail` are what the failed state keeps."""

    code = "step_failed"
    facts = (*DeployerError.facts, "kind", "step", "log")

    def __init__(self, message: str, *, kind: FailureKind, excerpt: str = "", **said: Unpack[Said]) -> None:
        super().__init__(message, **said)
        self.kind = kind
        self.excerpt = excerpt  # the end of a log worth showing once; never persisted, and not among the facts
        self.step = self.log = ""  # the run that fails fills them in


class Interrupted(DeployerError):
    """The user or the system asked us to stop. Exit code 128 + signal, as a shell would report it."""

    code = "interrupted"

    def __init__(self, message: str, *, signum: int = signal.SIGINT, **said: Unpack[Said]) -> None:
        super().__init__(message, **said)
        self.signum = signal.Signals(signum)
        self.exit_code = 128 + signum
