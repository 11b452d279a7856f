"""The exact command lines that OpenTofu gets, and the environment it gets them in."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployer.config.model import Timeouts
from deployer.process import Context
from deployer.tofu.engine import Tofu, tofu_environment

PLAN = Path("/home/me/my project/deployer.tfplan")
RECORDING = f"""#!{sys.executable}
import json, pathlib, sys
pathlib.Path("argv.json").write_text(json.dumps(sys.argv))
print('{{"diagnostics": []}}' if sys.argv[1] == "validate" else "{{}}")
"""


@pytest.fixture
def tofu(tmp_path: Path) -> Tofu:
    """An OpenTofu that does nothing but write down how it was called."""
    program = tmp_path / "tofu"
    program.write_text(RECORDING)
    program.chmod(0o755)
    return Tofu(program, tmp_path, Timeouts(), Context({}))


def argv(tofu: Tofu, command: Callable[[Tofu], object]) -> list[str]:
    command(tofu)
    called: list[str] = json.loads((tofu.folder / "argv.json").read_text())
    return called


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (lambda tofu: tofu.init(), ["init", "-input=false", "-no-color"]),
        (lambda tofu: tofu.validate(), ["validate", "-json"]),
        (
            lambda tofu: tofu.plan(PLAN),
            ["plan", "-json", "-input=false", "-detailed-exitcode", "-lock=false", f"-out={PLAN}"],
        ),
        (lambda tofu: tofu.plan(), ["plan", "-json", "-input=false", "-detailed-exitcode", "-lock=false"]),
        (lambda tofu: tofu.drift(), ["plan", "-json", "-input=false", "-lock=false", "-refresh-only"]),
        (lambda tofu: tofu.outputs(), ["output", "-json"]),
        (lambda tofu: tofu.destroy(), ["destroy", "-json", "-input=false", "-auto-approve", "-lock-timeout=120s"]),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_command_lines(tofu: Tofu, command: Callable[[Tofu], object], expected: list[str]) -> None:
    assert argv(tofu, command) == [str(tofu.binary), *expected]


def test_a_plan_is_applied_and_used_up(tofu: Tofu) -> None:
    plan, applying = tofu.folder / "deployer.tfplan", tofu.folder / "deployer-applying.tfplan"
    plan.touch()
    expected = ["apply", "-json", "-input=false", "-lock-timeout=120s", str(applying)]
    assert argv(tofu, lambda tofu: tofu.apply(plan, [])) == [str(tofu.binary), *expected]
    assert not plan.exists()
    assert not applying.exists()


def test_a_damaged_state_in_the_working_directory_is_never_read(tofu: Tofu, monkeypatch: pytest.MonkeyPatch) -> None:
    (tofu.folder / "terraform.tfstate").write_bytes(b"")
    monkeypatch.chdir(tofu.folder)
    assert argv(tofu, Tofu.outputs) == [str(tofu.binary), "output", "-json"]


def test_the_users_environment_reaches_opentofu_without_what_alters_commands(tmp_path: Path) -> None:
    users = {
        "PATH": "/bin",
        "HCLOUD_TOKEN": "secret",
        "TF_VAR_region": "eu",
        "TF_CLI_CONFIG_FILE": "/home/me/.tofurc",
        "TF_CLI_ARGS": "-destroy",
        "TF_CLI_ARGS_plan": "-refresh=false",
        "TF_WORKSPACE": "other",
        "TF_DATA_DIR": "/elsewhere",
        "TF_LOG": "TRACE",
        "TF_LOG_PATH": "/tmp/log",
        "TF_INPUT": "1",
        "TF_REATTACH_PROVIDERS": "{}",
    }
    assert tofu_environment(users, tmp_path) == {
        "PATH": "/bin",
        "HCLOUD_TOKEN": "secret",
        "TF_VAR_region": "eu",
        "TF_CLI_CONFIG_FILE": "/home/me/.tofurc",
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "TF_PLUGIN_CACHE_DIR": str(tmp_path),
        "DEPLOYER_CACHE": str(tmp_path.parent),
    }


def test_the_users_own_plugin_cache_stays() -> None:
    env = tofu_environment({"TF_PLUGIN_CACHE_DIR": "/mine"}, Path("/cache/plugins"))
    assert env["TF_PLUGIN_CACHE_DIR"] == "/mine"
