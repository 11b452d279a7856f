"""An illegal transition is an error in mypy and in pyright, on the line where it stands, and a legal one is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = ("illegal.py", "legal.py")
MARK = "# error"


def marked() -> set[tuple[str, int]]:
    return {
        (file, number)
        for file in FILES
        for number, line in enumerate((HERE / file).read_text().splitlines(), start=1)
        if line.endswith(MARK)
    }


def output(checkout: Path, *argv: str) -> str:
    done = subprocess.run(argv, cwd=checkout, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def mypy(checkout: Path, cache: Path) -> dict[tuple[str, int], str]:
    files = [str(HERE / file) for file in FILES]
    argv = (sys.executable, "-m", "mypy", "--cache-dir", str(cache), "--output", "json", *files)
    found = [json.loads(line) for line in output(checkout, *argv).splitlines() if line.startswith("{")]
    return {(Path(e["file"]).name, e["line"]): e["message"] for e in found if e["severity"] == "error"}


def pyright(checkout: Path) -> dict[tuple[str, int], str]:
    files = [str(HERE / file) for file in FILES]
    argv = (sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *files)
    found = json.loads(output(checkout, *argv))["generalDiagnostics"]
    return {
        (Path(d["file"]).name, d["range"]["start"]["line"] + 1): d["message"] for d in found if d["severity"] == "error"
    }


@pytest.mark.parametrize("tool", ["mypy", "pyright"])
def test_exactly_the_marked_lines_are_errors(checkout: Path, tmp_path: Path, tool: str) -> None:
    expected = marked()
    assert len(expected) > 40
    found = mypy(checkout, tmp_path / "cache") if tool == "mypy" else pyright(checkout)
    assert {line: found[line] for line in found.keys() - expected} == {}, "errors on lines that are right"
    assert expected - found.keys() == set(), "wrong lines that nobody complains of"
