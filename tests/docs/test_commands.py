"""The commands of each page, run from top to bottom against real environments, and what they print compared."""

from __future__ import annotations

import re

from tests.docs.pages import CHECKOUT, Page, read_page
from tests.docs.shell import Shell, stand_in

_SAMPLES = ("text", "json")


def follow(shell: Shell, page: Page, *, only: str | None = None) -> None:
    """Does what the page says: writes its files, types its commands, compares what it shows with what is printed."""
    printed = ""
    for block in page.blocks:
        if only is not None and block.section != only:
            continue
        if block.file:
            shell.write(block)
        elif block.language == "sh":
            stand_in(shell.directory)
            printed = shell.run(block)
        elif block.language in _SAMPLES and printed:
            assert_shown(block.text, printed, str(block))


def assert_shown(sample: str, printed: str, where: str) -> None:
    """Each line of the sample was printed, in that order; numbers, times and what `...` stands for may differ."""
    lines = iter(plain(line) for line in printed.splitlines())
    for line in sample.splitlines():
        if line.strip(" .") == "":
            continue
        wanted = re.compile(".*".join(re.escape(part) for part in plain(line).split("...")))
        assert any(wanted.fullmatch(shown) for shown in lines), f"{where}: {line!r} was not printed:\n{printed}"


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"\d+ min \d+ s|\d+(\.\d+)? s\b", "N s", line)
    return re.sub(r"\d+", "N", " ".join(line.split()))


def page(name: str) -> Page:
    return read_page(CHECKOUT / name)


def test_providers(shell: Shell) -> None:
    follow(shell, page("docs/providers.md"))
