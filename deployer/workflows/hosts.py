"""From a provider's output to the hosts we work with: checked, because a module may be anybody's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployer.config.model import Spec
from deployer.environment import Host
from deployer.errors import FailureKind, StepFailed
from deployer.events import printable
from deployer.remote import Target, forget_host_key
from deployer.storage.folder import EnvironmentFolder

_CONTRACT = "a provider's output `hosts` is a map of each host's name to {address, port, user} (docs/providers.md)"
_CONSOLE_END = 4096  # bytes


def read_hosts(outputs: Mapping[str, Any], spec: Spec) -> dict[str, Host]:
    """The hosts a module gave out. Raises StepFailed where one is missing or not as the contract says."""
    if "hosts" not in outputs:
        raise _broken("the module has no output `hosts`")
    given = outputs["hosts"]
    if not isinstance(given, dict):
        raise _broken("the output `hosts` is not a map")
    missing = [name for name in spec.hosts if not isinstance(given.get(name), dict)]
    if missing:
        raise _broken(f"the output `hosts` does not have {', '.join(missing)}")
    return {name: _host(name, given[name], spec) for name in spec.hosts}


def _host(name: str, given: Mapping[str, Any], spec: Spec) -> Host:
    known = {k: v for k, v in given.items() if k in Host.model_fields and v is not None}
    try:
        # Not strict: OpenTofu turns numbers into strings where a module mixes the two.
        return Host.model_validate({"user": spec.ssh.user, **known}, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in ("hosts", name, *first["loc"]))
        raise _broken(f"the output {printable(where)}: {first['msg']}") from None


def _broken(problem: str) -> StepFailed:
    return StepFailed(problem, kind=FailureKind.INPUT, detail=_CONTRACT)


def targets(hosts: Mapping[str, Host], folder: EnvironmentFolder, key: Path) -> tuple[Target, ...]:
    """The hosts as the readiness checks want them."""
    return tuple(
        Target(
            name=name,
            address=host.address,
            port=host.port,
            user=host.user,
            private_key=key,
            known_hosts=folder.known_hosts,
            last_words=_console(folder.tofu, host),
        )
        for name, host in hosts.items()
    )


def _console(tofu: Path, host: Host) -> Callable[[], str]:
    def last_words() -> str:
        if host.console is None:
            return ""
        try:
            with (tofu / host.console).open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - _CONSOLE_END))
                return printable(file.read().decode("utf-8", errors="replace"))
        except OSError:
            return ""

    return last_words


def forget_replaced(before: Mapping[str, Host], now: Mapping[str, Host], replaced: set[str], known_hosts: Path) -> None:
    """Drops the pinned keys of machines that are new: another `id`, or, without ids, in `replaced`. Raises OSError."""
    for name, host in now.items():
        old = before.get(name)
        if name in replaced if old is None or host.id is None else old.id != host.id:
            for pinned in filter(None, (old, host)):
                forget_host_key(known_hosts, pinned.address, pinned.port)
