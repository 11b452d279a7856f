"""The house rules of deployer/: who may import whom, a docstring for each module, sizes a reader can bear."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

MODULE_LINES = 400
PRODUCT_LINES = 4_564
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def modules(checkout: Path) -> dict[str, str]:
    found = {str(path.relative_to(checkout)): path.read_text() for path in (checkout / "deployer").rglob("*.py")}
    assert found, "no module found: the test looks in the wrong place"
    return found


def code_lines(source: str) -> set[int]:
    """The numbers of the lines that are neither blank, comment nor docstring."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    said = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
        for number in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    return {
        number for token in tokens if token.type not in LAYOUT for number in range(token.start[0], token.end[0] + 1)
    } - said


def test_imports_point_one_way(checkout: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=checkout, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_says_what_it_owns(checkout: Path) -> None:
    silent = [
        name
        for name, source in modules(checkout).items()
        if source.strip() and not ast.get_docstring(ast.parse(source))
    ]
    assert not silent


def test_no_module_outgrows_a_reader(checkout: Path) -> None:
    sizes = {name: len(source.splitlines()) for name, source in modules(checkout).items()}
    assert not {name: size for name, size in sizes.items() if size > MODULE_LINES}


def test_the_product_stays_small(checkout: Path) -> None:
    total = sum(len(code_lines(source)) for source in modules(checkout).values())
    assert total < PRODUCT_LINES


def test_code_lines_counts_what_a_reader_reads() -> None:
    assert code_lines('"""doc\n\nmore"""\n\n# why\nx = (\n    1,  # one\n)\n') == {6, 7, 8}
