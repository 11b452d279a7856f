"""The command that prompts and scripts call often: its module imports next to nothing."""

from __future__ import annotations

import click

from deployer.cli.choices import Chosen
from deployer.cli.options import command, name_argument
from deployer.cli.session import emit, reading


@command(example="deployer status demo")
@name_argument()
@click.pass_obj
def status(chosen: Chosen, name: str) -> None:
    """Print the state and nothing else."""
    state = reading(chosen).status(name)
    emit(chosen.options, state, {"name": name, "state": state})
