"""The hosts we work with: from a provider's output, checked because a module may be anybody's, the key to them, and
whether they let us in."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deployer.config.model import Spec
from deployer.environment import Environment, Host
from deployer.errors import FailureKind, StepFailed
from deployer.events import one_line, printable
from deployer.process import Context, capture
from deployer.remote.ssh import CALL, Target, ask, forget_host_key, ssh_argv, who_answers
from deployer.storage.folder import EnvironmentFolder

_CONTRACT = "a provider's output `hosts` is a map of each host's name to {address, port, user} (docs/providers.md)"
_UNSAID: dict[str, Any] = {"port": 22, "ports": (), "id": None, "console": None}


def read_hosts(outputs: Mapping[str, Any], spec: Spec) -> dict[str, Host]:
    """The hosts a module gave out. Raises StepFailed where one is missing or not as the contract says."""
    given = outputs.get("hosts")
    if not isinstance(given, dict):
        raise _broken("the module has no output `hosts` that is a map")
    if missing := [name for name in spec.hosts if not isinstance(given.get(name), dict)]:
        raise _broken(f"the output `hosts` does not have {', '.join(missing)}")
    return {name: _host(name, given[name], spec) for name in spec.hosts}


def _host(name: str, given: Mapping[str, Any], spec: Spec) -> Host:
    known = {k: v for k, v in given.items() if k in Host.model_fields and v is not None}
    try:
        # Not strict: OpenTofu turns numbers into strings where a module mixes the two.
        return Host.model_validate({**_UNSAID, "user": spec.ssh.user, **known}, strict=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in ("hosts", name, *first["loc"]))
        raise _broken(f"the output {printable(where)}: {first['msg']}") from None


def _broken(problem: str) -> StepFailed:
    return StepFailed(problem, kind=FailureKind.INPUT, detail=_CONTRACT)


def private_key(spec: Spec, folder: EnvironmentFolder) -> Path:
    """Where the private key is: the user's own, or one made for the environment."""
    return Path(spec.ssh.private_key) if spec.ssh.private_key else folder.private_key


def public_key(key: Path, folder: EnvironmentFolder, context: Context) -> str:
    """The public key of `key`; the environment's own pair is made where missing. Raises StepFailed, ToolMissing."""

    def keygen(*arguments: str) -> str:
        outcome, text = capture(("ssh-keygen", *arguments, "-f", str(key)), "ssh-keygen", 30, context)
        if outcome.returncode != 0:
            said = "".join(outcome.tail[-1:])  # before it there may be a banner
            raise StepFailed(f"the key {key} cannot be used", kind=FailureKind.INPUT, detail=said)
        return text

    if key == folder.private_key and not key.exists():
        keygen("-q", "-t", "ed25519", "-N", "", "-C", f"deployer-{folder.name}")
    # -P '': a key with a passphrase is refused here rather than asked for where nobody can answer.
    return keygen("-y", "-P", "").strip()


def targets(environment: Environment, spec: Spec, folder: EnvironmentFolder) -> tuple[Target, ...]:
    """The environment's hosts as `remote` wants them."""
    key = private_key(spec, folder)
    return tuple(
        Target(
            name=name,
            address=host.address,
            port=host.port,
            user=host.user,
            private_key=key,
            known_hosts=folder.known_hosts,
            console=folder.tofu / host.console if host.console else None,
        )
        for name, host in environment.hosts.items()
    )


def forget_replaced(before: Mapping[str, Host], now: Mapping[str, Host], replaced: set[str], known_hosts: Path) -> None:
    """Drops the pinned keys of machines that are new: another `id`, or, without ids, in `replaced`. Raises OSError."""
    for name, host in now.items():
        old = before.get(name)
        is_new = old.id != host.id if old and host.id else name in replaced
        for pinned in filter(None, (old, host)) if is_new else ():
            forget_host_key(known_hosts, pinned.address, pinned.port)


def problems_with(targets: Sequence[Target], context: Context) -> list[str]:
    """Of each host, all asked side by side, why nobody can work on it, if so: it does not answer, is another machine,
    or does not let us in."""
    with ThreadPoolExecutor(max_workers=20) as pool:
        return list(pool.map(partial(_problem_with, context=context), targets))


def _problem_with(target: Target, context: Context) -> str:
    name, where = target.name, f"at {target.address} port {target.port}"
    login = ask(target, ssh_argv(target, "true"), CALL, context)[0] if target.pinned else None
    if login and login.returncode == 0:
        return ""
    who, why = who_answers(target, context)
    if who == "ours":
        said = one_line("".join(login.tail[-1:])) or f"no login within {CALL:.0f} s" if login else ""
        return f"{name} answers {where}, but does not let {target.user} in: {said}" if login else ""
    found = f"another machine than {name} answers" if who == "another" else f"{name} does not answer"
    return f"{found} {where}: {why}"
