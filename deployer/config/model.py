"""The specification of an environment, validated: what the user's file says, defaults filled in. Knows no states.

With what explains it: the example that `init` writes, and the JSON Schema for editors.
"""

import itertools
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, model_validator
from pydantic.functional_validators import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError

EXAMPLE = Path(__file__).with_name("demo.yml")  # the commented file that `deployer init` writes; it works as it stands
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=40)]
HostName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=63)]
Port = Annotated[int, Field(ge=1, le=65535)]
PortHere = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[int, Field(ge=1, le=7 * 24 * 3600)]
Line = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]
# A name or an IPv4 address, or an IPv6 address: with two colons at least, and not the port that belongs to `port`.
_ADDRESS = r"^([A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f]*(:[0-9A-Fa-f.]*){2,}(%[A-Za-z0-9._-]+)?)$"
Address = Annotated[str, Field(pattern=_ADDRESS, max_length=253)]
Account = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9._@-]*$", max_length=64)]  # as a directory service has it
Login = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
Group = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]
Variables = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], JsonValue]
Options = dict[str, JsonValue]


def _one_or_many(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


def _named_or_at_path(value: Any) -> Any:
    return {"path" if "/" in value else "name": value} if isinstance(value, str) else value


def _located(value: str, info: ValidationInfo) -> str:
    """Where a path leads: relative ones start from the file's folder (the validation's context), `~` is the user's
    home. In a saved specification all are absolute."""
    return os.path.normpath(Path(info.context or "/", os.path.expanduser(value)))


Located = Annotated[Line, AfterValidator(_located)]
Playbook = Annotated[Line, AfterValidator(lambda value, info: _located(value, info) if is_path(value) else value)]
Ports = Annotated[tuple[Port, ...], BeforeValidator(_one_or_many, json_schema_input_type=Port | tuple[Port, ...])]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Provider(_Section):
    """Where machines come from: a bundled provider by `name`, or the user's own root module at `path`."""

    name: Name | None = Field(default=None, description="A bundled provider: `local` or `existing`.")
    path: Located | None = Field(default=None, description="The folder of an OpenTofu module of yours.")
    options: Options = Field(default={}, repr=False, description="Further input variables of the module, as they are.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.name is None) == (self.path is None):
            raise PydanticCustomError("either", "give either a name (local, existing) or a path")
        return self

    @property
    def title(self) -> str:
        return self.name or str(self.path)


_Provider = Annotated[Provider, BeforeValidator(_named_or_at_path, json_schema_input_type=str | Provider)]


class Machine(_Section):
    """One host: its sizes, the ports forwarded to it, and, for `existing` machines, where it is."""

    cpus: int = Field(default=2, ge=1, le=256, description="Processors.")
    memory: int = Field(default=1024, ge=128, le=4 * 1024 * 1024, description="Memory in MiB.")
    disk: int = Field(default=8, ge=1, le=64 * 1024, description="Disk in GiB.")
    ports: dict[PortHere, Ports] = Field(
        default={}, description="`8080: 80`: this computer's port and the machine's. `0` takes any, also for a list."
    )
    groups: tuple[Group, ...] = Field(default=(), description="A list: its Ansible groups. Letters, _, later digits.")
    address: Address | None = Field(default=None, description="For `existing`: a name or IP address, without a port.")
    port: Port | None = Field(default=None, description="For `existing`: the machine's SSH port.")
    user: Account | None = Field(default=None, description="For `existing`: its login, where not `ssh.user`.")
    options: Options = Field(default={}, repr=False, description="Further attributes of this host for your own module.")

    @property
    def forwards(self) -> tuple[tuple[int, int], ...]:
        """Pairs of a port of this computer (0: any free one) and the machine's port that it leads to."""
        return tuple((host, machine) for host, machines in self.ports.items() for machine in machines)


class Ssh(_Section):
    user: Login = Field(default="deployer", description="The login: a-z, 0-9, _ and -. Made on new machines.")
    private_key: Located | None = Field(default=None, description="Your own private key; it has no passphrase.")


class Configure(_Section):
    playbooks: tuple[Playbook, ...] = Field(default=(), description="A list: bundled ones by name, yours by path.")
    variables: Variables = Field(
        default={}, repr=False, description="For all playbooks. Names: letters, digits, _. See Secrets."
    )
    vault_password_file: Located | None = Field(default=None, description="A file with the Ansible Vault password.")


class Timeouts(_Section):
    """Limits in seconds; each wait that passes its own ends in an error that names it."""

    init: Seconds = Field(default=600, description="OpenTofu downloads its providers and modules.")
    plan: Seconds = Field(default=600, description="OpenTofu validates, plans and reads outputs.")
    apply: Seconds = Field(default=3600, description="OpenTofu creates or changes the machines.")
    destroy: Seconds = Field(default=3600, description="OpenTofu takes everything away.")
    ssh: Seconds = Field(
        default=600, description="A machine answers and lets us in; at most 60 where OpenTofu has nothing to do."
    )
    cloud_init: Seconds = Field(default=900, description="cloud-init finishes.")
    playbook: Seconds = Field(default=3600, description="One playbook, on all hosts.")


class Spec(_Section, title="An environment of deployer"):
    """An environment: one or more machines, where they come from, and what is done to them."""

    name: Name = Field(description="The environment's name: a-z, 0-9 and hyphens, at most 40 characters.")
    provider: _Provider = Field(
        default=Provider(name="local"), description="Where the machines come from: a name, or a mapping."
    )
    hosts: dict[HostName, Machine] = Field(
        min_length=1, description="Machines by name (a-z, 0-9, -); `{}`: all defaults."
    )
    ssh: Ssh = Field(default=Ssh(), description="How the machines are reached.")
    cloud_init: Options | Literal[False] = Field(
        default={}, repr=False, description="cloud-config merged into ours; false: no cloud-init."
    )
    cloud_init_strict: bool = Field(default=False, description="Whether `degraded` cloud-init fails the provisioning.")
    configure: Configure = Field(default=Configure(), description="What Ansible does to the machines.")
    timeouts: Timeouts = Field(default=Timeouts(), description="Time limits in seconds.")

    @property
    def playbook_steps(self) -> dict[str, str]:
        """Step name to playbook entry, in order; a repeated name is told apart, so that each step is one of its own."""
        steps: dict[str, str] = {}
        for entry in self.configure.playbooks:
            # A folder will have this name, and more in it than a file's name, which may be as long as they come.
            name = step = "playbook:" + re.sub(r"[^A-Za-z0-9._-]+", "_", Path(entry).stem)[:200]
            numbers = itertools.count(2)
            while step in steps:
                step = f"{name}-{next(numbers)}"
            steps[step] = entry
        return steps


class LoadedSpec(NamedTuple):
    """A specification that was accepted, the same as JSON-ready data, and where its file is."""

    spec: Spec
    data: dict[str, JsonValue]
    file: Path


def is_path(playbook: str) -> bool:
    """Whether a `playbooks` entry is a path of the user's rather than a bundled playbook's name."""
    return "/" in playbook or playbook.endswith((".yml", ".yaml"))


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file (draft 2020-12)."""
    return {**Spec.model_json_schema(), "$schema": "https://json-schema.org/draft/2020-12/schema"}
