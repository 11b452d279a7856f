"""The pages of the documentation as data: fenced blocks, headings, links. Runs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^```(\w*)\s*$")
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"`([^`\s]+)`:$")  # the paragraph before a block ends in the name of the file it shows


@dataclass(frozen=True)
class Block:
    """A fenced block. `file` is the file it shows, where the text says so; `section` its heading's anchor."""

    page: Path
    line: int
    language: str
    text: str
    file: str
    section: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(CHECKOUT)}:{self.line}"


@dataclass(frozen=True)
class Page:
    path: Path
    blocks: tuple[Block, ...]
    anchors: frozenset[str]
    links: tuple[str, ...]
    text: str

    def of(self, language: str, section: str | None = None) -> tuple[Block, ...]:
        return tuple(b for b in self.blocks if b.language == language and section in (None, b.section))


def all_pages() -> tuple[Path, ...]:
    """Every page a user may read; a page that is added is tested without anyone remembering."""
    return tuple(sorted([CHECKOUT / "README.md", CHECKOUT / "CHANGELOG.md", *(CHECKOUT / "docs").rglob("*.md")]))


def read_page(path: Path) -> Page:
    """Raises AssertionError where a block is not closed, or has no language."""
    blocks: list[Block] = []
    anchors: list[str] = []
    links: list[str] = []
    section = before = ""
    inside: list[str] | None = None
    language, start = "", 0
    text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if inside is not None:
            if fence and not fence[1]:
                named = _FILE.search(before)
                shown = "\n".join(inside) + "\n"
                blocks.append(Block(path, start, language, shown, named[1] if named else "", section))
                inside, before = None, ""
            else:
                inside.append(line)
        elif fence:
            assert fence[1], f"{path}:{number}: a block without a language"
            inside, language, start = [], fence[1], number
        else:
            if heading := _HEADING.match(line):
                section = _anchor(heading[2])
                anchors.append(section)
            links += [a or b for a, b in _LINK.findall(re.sub(r"`[^`]*`", "", line))]
            before = line or before
    assert inside is None, f"{path}:{start}: a block that is not closed"
    return Page(path, tuple(blocks), frozenset(anchors), tuple(links), text)


def _anchor(heading: str) -> str:
    # As GitHub makes them: lower case, punctuation dropped, spaces become hyphens.
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
