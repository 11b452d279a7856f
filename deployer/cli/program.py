"""The commands and where they are; the program's own help. Nothing of a command is imported before it is called."""

from __future__ import annotations

import click

from deployer import __version__
from deployer.cli.options import Group

_FILES, _RUNS, _LOOKS = "deployer.cli.files", "deployer.cli.runs", "deployer.cli.looks"

COMMANDS = {
    "init": _FILES,
    "validate": _FILES,
    "schema": _FILES,
    "create": _RUNS,
    "up": _RUNS,
    "plan": _RUNS,
    "provision": _RUNS,
    "configure": _RUNS,
    "destroy": _RUNS,
    "status": "deployer.cli.status",
    "show": _LOOKS,
    "list": _LOOKS,
    "ssh": _LOOKS,
    "logs": _LOOKS,
    "inventory": _LOOKS,
    "doctor": _LOOKS,
}

_EPILOG = """\b
Example:
  deployer init                    write a commented demo.yml
  deployer up demo.yml             make it
  deployer destroy demo            take everything away

\b
Shell completion:
  eval "$(_DEPLOYER_COMPLETE=bash_source deployer)"    also zsh_source, fish_source

\b
Exit codes:
  0 done, 1 a step failed, 2 usage or invalid file, 3 wrong state, 4 locked,
  5 unreadable state, 6 a tool is missing or too old, 130 interrupted
"""


@click.group(cls=Group, table=COMMANDS, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.version_option(__version__, message="deployer %(version)s")
def program() -> None:
    """Environments of machines, from a short YAML file to configured hosts and back to nothing."""
