"""The commands about configuration files: init, validate, schema."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from deployer.cli.choices import Chosen
from deployer.cli.options import command, file_option
from deployer.cli.session import emit, reading
from deployer.events import printable


@command(example="deployer init demo        # writes demo/demo.yml")
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.pass_obj
def init(chosen: Chosen, directory: Path) -> None:
    """Write a commented demo.yml that works as it stands."""
    file = directory / reading(chosen).init(directory).name
    text = f"Wrote {printable(str(file))}\nNext: deployer up {shlex.quote(str(file))}"
    emit(chosen.options, text, {"file": str(file)})


@command(example="deployer validate -f demo.yml")
@file_option
@click.pass_obj
def validate(chosen: Chosen, file: Path) -> None:
    """Check a configuration file; nothing is made or changed."""
    spec = reading(chosen).validate(file)
    hosts, playbooks = list(spec.hosts), list(spec.configure.playbooks)
    text = (
        f"{file}: ok\n  name       {spec.name}\n  provider   {spec.provider.title}\n"
        f"  hosts      {', '.join(hosts)}\n  playbooks  {', '.join(playbooks) or 'none'}"
    )
    facts = {"name": spec.name, "provider": spec.provider.title, "hosts": hosts, "playbooks": playbooks}
    emit(chosen.options, printable(text), {"valid": True, "file": str(file), **facts})


@command(example="deployer schema > .deployer/schema.json")
@click.pass_obj
def schema(chosen: Chosen) -> None:
    """Print the JSON Schema of a configuration file, for editors."""
    from deployer.config.guide import schema as json_schema

    data = json_schema()
    emit(chosen.options, json.dumps(data, indent=2), data)
