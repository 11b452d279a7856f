"""The exact command lines that OpenTofu gets, and the environment it gets them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.tofu.commands import Commands
from deployer.tofu.engine import tofu_environment

TOFU = "/opt/tofu"
PLAN = Path("/home/me/my project/deployer.tfplan")
commands = Commands(Path(TOFU))


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (commands.init(), ["init", "-input=false", "-no-color"]),
        (commands.validate(), ["validate", "-json"]),
        (
            commands.plan(PLAN),
            ["plan", "-json", "-input=false", "-detailed-exitcode", "-lock-timeout=120s", f"-out={PLAN}"],
        ),
        (commands.plan(), ["plan", "-json", "-input=false", "-detailed-exitcode", "-lock=false"]),
        (
            commands.plan(refresh_only=True),
            ["plan", "-json", "-input=false", "-detailed-exitcode", "-lock=false", "-refresh-only"],
        ),
        (commands.apply(PLAN), ["apply", "-json", "-input=false", "-lock-timeout=120s", str(PLAN)]),
        (commands.output(), ["output", "-json"]),
        (commands.destroy(), ["destroy", "-json", "-input=false", "-auto-approve", "-lock-timeout=120s"]),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_command_lines(built: tuple[str, ...], expected: list[str]) -> None:
    assert list(built) == [TOFU, *expected]


def test_a_damaged_state_in_the_working_directory_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "terraform.tfstate").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert Commands(Path(TOFU)).output() == (TOFU, "output", "-json")


def test_the_users_environment_reaches_opentofu_without_what_alters_commands() -> None:
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
    assert tofu_environment(users, Path("/cache/plugins")) == {
        "PATH": "/bin",
        "HCLOUD_TOKEN": "secret",
        "TF_VAR_region": "eu",
        "TF_CLI_CONFIG_FILE": "/home/me/.tofurc",
        "TF_IN_AUTOMATION": "1",
        "CHECKPOINT_DISABLE": "1",
        "TF_PLUGIN_CACHE_DIR": "/cache/plugins",
    }


def test_the_users_own_plugin_cache_stays() -> None:
    env = tofu_environment({"TF_PLUGIN_CACHE_DIR": "/mine"}, Path("/cache/plugins"))
    assert env["TF_PLUGIN_CACHE_DIR"] == "/mine"
