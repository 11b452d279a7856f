"""The wheel, built from the sdist as a release is, carries its data and works without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

BUNDLED = ("playbooks", "tofu", "inventory")


def output(argv: list[str | Path], directory: Path) -> str:
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(argv, cwd=directory, env=environ, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    output([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout], out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a virtual environment that has the wheel and nothing of the checkout."""
    directory = tmp_path_factory.mktemp("installed")
    output([sys.executable, "-m", "venv", "venv"], directory)
    binaries = directory / "venv" / "bin"
    output([binaries / "python", "-m", "pip", "install", "--quiet", wheel], directory)
    return binaries


def test_what_is_shipped_is_what_the_checkout_tracks(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        executable = {entry.filename for entry in archive.infolist() if entry.external_attr >> 16 & 0o100}
    tracked = output(["git", "ls-files", "--", *BUNDLED], checkout).split()
    assert {name.split("/")[0] for name in tracked} == set(BUNDLED)
    shipped = [f"deployer/_bundled/{name}" for name in tracked]
    assert set(shipped) <= set(names)
    for name, path in zip(shipped, tracked, strict=True):
        assert (name in executable) == os.access(checkout / path, os.X_OK), name
    assert {name.split("/")[0].split("-")[0] for name in names} == {"deployer"}
    assert "deployer/py.typed" in names, "or its types are for nobody"
    assert not [name for name in names if "tfstate" in name or "__pycache__" in name or "/machines/" in name]


@pytest.mark.network
def test_the_installed_package_finds_its_data(installed: Path, tmp_path: Path) -> None:
    code = f"from deployer.bundled import bundled; print(*map(bundled, {BUNDLED}))"
    for kind, found in zip(BUNDLED, output([installed / "python", "-c", code], tmp_path).split(), strict=True):
        assert found.endswith(f"site-packages/deployer/_bundled/{kind}")
        assert Path(found).is_dir()


@pytest.mark.network
def test_the_installed_command_works_in_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    version = output([installed / "python", "-c", "import deployer; print(deployer.__version__)"], tmp_path).strip()
    assert version in output([installed / "deployer", "--version"], tmp_path)
    output([installed / "deployer", "init"], tmp_path)
    output([installed / "deployer", "validate", "-f", "demo.yml"], tmp_path)
    assert (tmp_path / "demo.yml").is_file()
    assert (tmp_path / ".deployer").is_dir()
