"""A recorded terminal session as a picture: the last screen of an asciinema file, as SVG.

asciinema rec --cols 100 --rows 40 -c 'deployer up demo.yml' up.cast
python docs/pictures/render.py up.cast 'deployer up demo.yml' > docs/pictures/up.svg
"""

from __future__ import annotations

import json
import re
import sys
from html import escape
from pathlib import Path

STYLES = {"1": "b", "2": "d", "31": "r", "32": "g", "33": "y"}
PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(\r|\n)|([^\x1b\r\n]+)")
CELL, LINE, MARGIN = 8.4, 19, 16  # pixels

Cells = list[tuple[str, str]]  # each a character and its style


def screen(cast: Path) -> list[Cells]:
    """The lines as they stood at the end. Knows what our progress uses: colours, carriage return, erased lines."""
    lines: list[Cells] = [[]]
    column, style = 0, ""
    for record in cast.read_text(encoding="utf-8").splitlines()[1:]:
        _, kind, data = json.loads(record)
        for code, letter, move, text in PIECE.findall(data if kind == "o" else ""):
            if letter == "m":
                style = STYLES.get(code, "")
            elif letter == "K":
                lines[-1] = []
            elif move == "\r":
                column = 0
            elif move == "\n":
                lines.append([])
                column = 0
            else:
                line = lines[-1]
                line[column : column + len(text)] = [(c, style) for c in text]
                column += len(text)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def spans(line: Cells) -> str:
    out, start = "", 0
    for i in range(1, len(line) + 1):
        if i == len(line) or line[i][1] != line[start][1]:
            # No-break spaces: not every program that draws SVG keeps several plain ones.
            text = escape("".join(c for c, _ in line[start:i])).replace(" ", "\xa0")
            out += f'<tspan class="{line[start][1]}">{text}</tspan>' if line[start][1] else text
            start = i
    return out


def picture(lines: list[Cells]) -> str:
    width = round(max(map(len, lines)) * CELL + 2 * MARGIN)
    height = len(lines) * LINE + 2 * MARGIN + 24
    rows = "\n".join(
        f'<text xml:space="preserve" x="{MARGIN}" y="{MARGIN + 36 + i * LINE}">{spans(line)}</text>'
        for i, line in enumerate(lines)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>
text {{ font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d8dee9 }}
.b {{ font-weight: bold; fill: #fff }} .d {{ fill: #8b95a7 }}
.r {{ fill: #ff6b6b }} .g {{ fill: #7bd88f }} .y {{ fill: #ffd166 }}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#1b2029"/>
<circle cx="20" cy="18" r="6" fill="#ff5f57"/>
<circle cx="40" cy="18" r="6" fill="#febc2e"/>
<circle cx="60" cy="18" r="6" fill="#28c840"/>
{rows}
</svg>
"""


if __name__ == "__main__":
    _, recording, typed = sys.argv
    prompt: Cells = [("$", "g"), (" ", ""), *((c, "b") for c in typed)]
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.write(picture([prompt, *screen(Path(recording))]))
