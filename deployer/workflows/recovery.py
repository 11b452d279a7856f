"""RECOVERY.md: what failed, what exists, and the commands to go on, to destroy, and to see that nothing is left."""

from __future__ import annotations

import contextlib
import json
import shlex

from deployer.environment import AnyEnvironment, Resources
from deployer.events import printable, utc_now
from deployer.storage.folder import EnvironmentFolder
from deployer.workflows.advice import next_commands, what_exists


def write_recovery(folder: EnvironmentFolder, environment: AnyEnvironment, cause: str, log: str) -> None:
    """Writes the page. Never raises: it is a help, and the state file already says the same."""
    with contextlib.suppress(OSError):
        folder.recovery.touch(mode=0o600)
        folder.recovery.chmod(0o600)
        folder.recovery.write_text(recovery_page(folder, environment, cause, log), encoding="utf-8")


def forget_recovery(folder: EnvironmentFolder) -> None:
    """Removes the page where nothing is left to recover from. Never raises."""
    with contextlib.suppress(OSError):
        folder.recovery.unlink(missing_ok=True)


def recovery_page(folder: EnvironmentFolder, environment: AnyEnvironment, cause: str, log: str) -> str:
    """The page as Markdown. Names and causes come from files and children: they are shown, never part of a command."""
    tofu = shlex.quote(str(folder.tofu))
    home = shlex.quote(str(folder.root.parent.parent))
    name = environment.name
    begun = environment.resources is not Resources.NONE
    exists = _resources(folder) if begun else ()
    without_us = _without_us(tofu) if begun else []  # there may be no folder yet, or none that OpenTofu can read
    lines = [
        f"# Environment {name} is {environment.state}",
        "",
        f"Written {utc_now():%Y-%m-%d %H:%M:%S} UTC, after: {_quoted(cause)}",
        "",
        f"{what_exists(environment, folder.tofu)} The log of that run is {_quoted(log)}.",
        "",
        "## What OpenTofu knows to exist",
        "",
        *(exists or ["- nothing is in its state"]),
        "",
        "## To look",
        "",
        *_block(f"deployer --home {home} show {name}", f"deployer --home {home} logs {name}"),
        "",
        "## To go on",
        "",
        *_block(f"{next_commands(environment)[0].replace('deployer', f'deployer --home {home}', 1)}"),
        "",
        "## To take everything away",
        "",
        *_block(f"deployer --home {home} destroy {name} --yes"),
        "",
        *without_us,
    ]
    return "\n".join(lines)


def _without_us(tofu: str) -> list[str]:
    return [
        "Without deployer:",
        "",
        *_block(f"cd {tofu}", "tofu init -input=false", "tofu destroy -auto-approve"),
        "",
        "## To see that nothing is left",
        "",
        *_block(f"cd {tofu}", "tofu state list    # prints nothing"),
        "",
    ]


def _block(*commands: str) -> list[str]:
    return ["```sh", *commands, "```"]


def _quoted(text: str) -> str:
    return "`" + printable(text).replace("`", "'").replace("\n", " ") + "`"


def _resources(folder: EnvironmentFolder) -> tuple[str, ...]:
    """Addresses and ids out of OpenTofu's own state; nothing else of it, since the rest may be secret."""
    try:
        state = json.loads((folder.tofu / "terraform.tfstate").read_text(encoding="utf-8"))
        return tuple(
            f"- {_quoted(_address(resource, instance))} id "
            f"{_quoted(str(instance.get('attributes', {}).get('id', 'unknown')))}"
            for resource in state["resources"]
            if resource.get("mode") == "managed"
            for instance in resource.get("instances", ())
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return ("- its state is not in that folder, or cannot be read",)


def _address(resource: dict[str, str], instance: dict[str, object]) -> str:
    module = f"{resource['module']}." if "module" in resource else ""
    key = f"[{json.dumps(instance['index_key'])}]" if "index_key" in instance else ""
    return f"{module}{resource['type']}.{resource['name']}{key}"
