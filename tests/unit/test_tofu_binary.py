"""Which OpenTofu is found, and which are refused: small programs that only say a version stand for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deployer.errors import ToolMissing
from deployer.process import Context
from deployer.tofu.binary import Engine, cache_directory, find_engine, typed


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n[ \"$*\" = 'version -json' ] || exit 9\ncat <<'END'\n{says}\nEND\n")
    path.chmod(0o755)
    return path


def version(number: str) -> str:
    return f'{{"terraform_version": "{number}", "platform": "linux_amd64"}}'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": f"{tmp_path / 'path'}:/usr/bin:/bin", "DEPLOYER_CACHE": str(tmp_path / "cache")}


def find(environ: dict[str, str]) -> Engine:
    return find_engine(Context(environ))


@pytest.mark.parametrize("number", ["1.6.0", "1.6.2", "1.10.0-beta1", "1.11.4", "2.0.0"])
def test_on_path(tmp_path: Path, environ: dict[str, str], number: str) -> None:
    tofu = program(tmp_path / "path" / "tofu", version(number))
    assert find(environ) == Engine(tofu, number)


def test_what_a_person_types(tmp_path: Path, environ: dict[str, str]) -> None:
    assert typed(environ) == "tofu"
    cached = program(tmp_path / "cache" / "bin" / "tofu", version("1.6.0"))
    assert typed(environ) == str(cached)
    assert typed({**environ, "DEPLOYER_TOFU": "terraform"}) == "tofu"
    program(tmp_path / "path" / "terraform", version("1.6.0"))
    assert typed({**environ, "DEPLOYER_TOFU": "terraform"}) == "terraform"
    program(tmp_path / "path" / "tofu", version("1.6.0"))
    assert typed(environ) == "tofu"


def test_terraform_is_never_taken_silently(tmp_path: Path, environ: dict[str, str]) -> None:
    terraform = program(tmp_path / "path" / "terraform", version("1.11.4"))
    with pytest.raises(ToolMissing, match="OpenTofu is not installed") as caught:
        find(environ)
    assert caught.value.exit_code == 6
    assert caught.value.help == "deployer doctor --install"
    assert find({**environ, "DEPLOYER_TOFU": "terraform"}).path == terraform
    assert find({**environ, "DEPLOYER_TOFU": str(terraform)}).path == terraform


@pytest.mark.parametrize("number", ["1.5.7", "0.15.0", "1", "", "x"])
def test_too_old(tmp_path: Path, environ: dict[str, str], number: str) -> None:
    tofu = program(tmp_path / "path" / "tofu", version(number))
    with pytest.raises(ToolMissing, match="too old") as caught:
        find(environ)
    assert str(tofu) in caught.value.message
    assert "1.6 or newer" in caught.value.detail
    assert caught.value.exit_code == 6


def test_an_old_one_on_path_does_not_hide_a_good_one_in_the_cache(tmp_path: Path, environ: dict[str, str]) -> None:
    program(tmp_path / "path" / "tofu", version("1.5.7"))
    cached = program(tmp_path / "cache" / "bin" / "tofu", version("1.6.2"))
    assert find(environ).path == cached


def test_nor_does_a_broken_one(tmp_path: Path, environ: dict[str, str]) -> None:
    program(tmp_path / "path" / "tofu", "not a version")
    cached = program(tmp_path / "cache" / "bin" / "tofu", version("1.6.2"))
    assert find(environ).path == cached


def test_a_named_one_has_no_second_choice(tmp_path: Path, environ: dict[str, str]) -> None:
    program(tmp_path / "path" / "tofu", version("1.6.2"))
    with pytest.raises(ToolMissing, match=r"nowhere \(named by DEPLOYER_TOFU\) was not found") as missing:
        find({**environ, "DEPLOYER_TOFU": "nowhere"})
    old = program(tmp_path / "old", version("1.5.0"))
    with pytest.raises(ToolMissing, match="too old") as too_old:
        find({**environ, "DEPLOYER_TOFU": str(old)})
    for caught in (missing, too_old):
        assert caught.value.help.startswith("unset DEPLOYER_TOFU"), "nobody would look at what --install brings"


@pytest.mark.parametrize("says", ["OpenTofu v1.6.2", "{}", "[]", '{"terraform_version": null}', ""])
def test_what_says_no_version(tmp_path: Path, environ: dict[str, str], says: str) -> None:
    program(tmp_path / "path" / "tofu", says)
    with pytest.raises(ToolMissing) as caught:
        find(environ)
    assert caught.value.exit_code == 6


def test_what_does_not_start(tmp_path: Path, environ: dict[str, str]) -> None:
    program(tmp_path / "path" / "tofu", "").write_bytes(b"\x7fELF no program at all")
    with pytest.raises(ToolMissing) as caught:
        find(environ)
    assert caught.value.exit_code == 6


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_directory({}) == Path("/home/me/.cache/deployer")
    assert cache_directory({"XDG_CACHE_HOME": "/xdg"}) == Path("/xdg/deployer")
    monkeypatch.chdir(tmp_path)
    assert cache_directory({"XDG_CACHE_HOME": "/xdg", "DEPLOYER_CACHE": "mine"}) == tmp_path / "mine"


@pytest.mark.root
def test_a_user_without_a_home() -> None:
    code = """
import os
from deployer.errors import ToolMissing
from deployer.tofu.binary import cache_directory

os.setuid(12345)
os.environ.pop("HOME", None)
try:
    cache_directory({})
except ToolMissing as error:
    print(error.message, cache_directory({"DEPLOYER_CACHE": "/x"}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "there is no home directory /x\n", done.stderr


def test_without_a_home_directory_there_is_still_a_name_to_type() -> None:
    assert typed({"PATH": "", "XDG_CACHE_HOME": "~nobody-of-this-name"}) == "tofu"
