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
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, dataclass_transform


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


@dataclass_transform(eq_default=False, kw_only_default=True, field_specifiers=(field,))
@dataclass(eq=False)
class DeployerError(Exception):
    """What happened to what (`message`), why (`detail`), what remains true (`remains`), what to type (`help`).

    A subclass is a dataclass, too; its class line says its `code`, and its `exit_code` where that is not its base's.
    """

    code: ClassVar[str] = "error"
    exit_code = 1

    message: str
    _: KW_ONLY
    detail: str = ""
    remains: str = ""
    help: str = ""

    def __init_subclass__(cls, *, code: str, exit_code: int | None = None) -> None:
        cls.code, cls.exit_code = code, exit_code or cls.exit_code
        dataclass(eq=False, kw_only=True)(cls)

    def __str__(self) -> str:
        return f"{self.message}: {self.detail}" if self.detail else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).__new__, (type(self),), self.__dict__  # so that it comes out of a pool of processes

    def as_dict(self) -> dict[str, object]:
        """The error as JSON-ready data; what is no part of its `repr` is not told to scripts either."""
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.repr}
        return {"code": self.code, **facts, "exit_code": self.exit_code}


class InvalidInput(DeployerError, code="invalid_input", exit_code=2):
    remains: str = "Nothing was changed."


class InvalidSpec(InvalidInput, code="invalid_spec"):
    """A configuration file that cannot be used; `complaints` has one line for each field, with file and line."""

    complaints: list[str]

    def __post_init__(self) -> None:
        self.detail = "\n".join(self.complaints)


class UnknownEnvironment(InvalidInput, code="unknown_environment"):
    """There is no environment of that name in this home."""


class Declined(InvalidInput, code="declined"):
    """A question was answered no, or could not be asked."""


class WrongState(DeployerError, code="wrong_state", exit_code=3):
    remains: str = "Nothing was changed."


class Locked(DeployerError, code="locked", exit_code=4):
    """Somebody else holds the environment; `holder` has the facts of the lock's record, as far as they are known."""

    remains: str = "Nothing was changed by this command."
    holder: Mapping[str, object] = field(default_factory=dict[str, object])


class UnreadableState(DeployerError, code="unreadable_state", exit_code=5):
    """The state file is damaged or of another shape."""


class ToolMissing(DeployerError, code="tool_missing", exit_code=6):
    remains: str = "Nothing was changed."


class StorageFailed(DeployerError, code="storage_failed"):
    """The home or a file in it cannot be read or written."""


class StepFailed(DeployerError, code="step_failed"):
    """A step failed; `kind` and the one-line `detail` are what the failed state keeps."""

    kind: FailureKind
    excerpt: str = field(default="", repr=False)  # the end of a log worth showing once, to a person; never persisted
    step: str = ""  # the run that fails fills these two in
    log: str = ""


class Interrupted(DeployerError, code="interrupted"):
    """The user or the system asked us to stop. Exit code 128 + signal, as a shell would report it."""

    remains: str = "Nothing was changed."
    signum: signal.Signals = field(default=signal.SIGINT, repr=False)

    def __post_init__(self) -> None:
        self.exit_code = 128 + self.signum
