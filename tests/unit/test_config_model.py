"""The example, the schema and the reference page say what the models say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from deployer.config.document import parse
from deployer.config.loading import load_spec, models_in
from deployer.config.model import EXAMPLE, Spec, schema
from tests.docs.reference import PAGE, configuration_reference

TEXT = EXAMPLE.read_text(encoding="utf-8")


def test_the_example_works_as_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "demo.yml"
    file.write_text(TEXT)
    spec = load_spec(file).spec
    assert spec.name == "demo"
    assert spec.provider.name == "local"
    assert spec.hosts["web"].forwards == ((8080, 80),)
    assert spec.configure.playbooks == ("base", "web")
    assert "greeting" in spec.configure.variables


def test_the_example_shows_every_option() -> None:
    for name, field in Spec.model_fields.items():
        assert re.search(rf"^(# )?{name}:", TEXT, re.MULTILINE), name
        for model in models_in(field.annotation):
            for option in model.model_fields:
                # The name of a bundled provider stands in the place of the mapping.
                shown = "provider" if (name, option) == ("provider", "name") else f" *#? +{option}"
                assert re.search(rf"^{shown}:", TEXT, re.MULTILINE), option


def test_what_the_example_shows_as_default_is_the_default() -> None:
    sections = {"hosts": "Machine", "timeouts": "Timeouts", "ssh": "Ssh"}
    models = {m.__name__: m for f in Spec.model_fields.values() for m in models_in(f.annotation)}
    shown: dict[str, Any] = {}
    for section in sections:
        block = re.search(rf"^(?:# )?{section}:.*?(?=\n\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
        assert block
        text = re.sub(r"^# ", "", re.sub(r"^    # ", "    ", block[0], flags=re.MULTILINE), flags=re.MULTILINE)
        data = parse(text).data[section]
        shown[section] = data["web"] if section == "hosts" else data
    examples = {"ports", "groups", "address", "port", "user", "private_key"}  # no default to show
    for section, model in sections.items():
        for option, value in shown[section].items():
            if option not in examples or (section, option) == ("ssh", "user"):
                assert models[model].model_fields[option].get_default(call_default_factory=True) == value, option


def test_the_schema_describes_the_file() -> None:
    properties = schema()["properties"]
    assert set(properties) == set(Spec.model_fields)
    assert schema()["required"] == ["name", "hosts"]
    assert {"type": "string"} in properties["provider"]["anyOf"]


def test_the_reference_page_is_up_to_date() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == configuration_reference(), "write it anew: python -m tests.docs.reference"
