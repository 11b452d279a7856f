"""A reader's terminal: the blocks of a page typed one after the other, in a folder of their own.

What a page says in a comment is done as said: `# exit code 1` expects that code, `# answer y` types that answer.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.pages import CHECKOUT, Block

_CODE = re.compile(r"^(?P<command>.*?\S)\s+# exit code (?P<code>\d+)\b.*$")
_ANSWER = re.compile(r"^(?P<command>.*?\S)\s+# answer (?P<answer>\w+)\b.*$")
_PAINT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r(?!\n)")


class Shell:
    """Runs blocks with the real programs. The working folder lasts from block to block, as in a terminal."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.environ = dict(environ)
        self.renamed: dict[
            str, str
        ] = {}  # a page's name or port, as a pattern, and ours: several tests share a computer
        self._here = self._before = directory

    def write(self, block: Block) -> None:
        """Writes the file that a block shows."""
        path = self._here / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")

    def run(self, block: Block, *, seconds: float = 300) -> str:
        """All that the block's commands printed. AssertionError where one ends otherwise than the page says."""
        return self.type(block.text, seconds=seconds, where=str(block))

    def type(self, text: str, *, seconds: float = 300, where: str = "") -> str:
        text = self.ours(text)
        left = self.directory.parent / f"{self.directory.name}.pwd"
        leaving = f'printf \'%s\\n\' "$PWD" "$OLDPWD" > {shlex.quote(str(left))}'
        script = "\n".join(["set -euo pipefail", f"OLDPWD={shlex.quote(str(self._before))}", *_commands(text), leaving])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self._here,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        printed = _PAINT.sub("", done.stdout).replace("\r\n", "\n")
        assert done.returncode == 0, f"{where}: code {done.returncode} in {self._here}:\n{text}\n{printed}"
        assert "Traceback" not in printed, f"{where}:\n{printed}"
        self._here, self._before = map(Path, left.read_text().splitlines())
        return printed

    def ours(self, text: str) -> str:
        """`text` with our names in place of the page's."""
        for pattern, ours in self.renamed.items():
            text = re.sub(pattern, ours, text)
        return text

    def start(self, command: str, output: Path) -> subprocess.Popen[bytes]:
        """A command that is left running, in a session of its own."""
        with output.open("wb") as file:
            return subprocess.Popen(
                ["bash", "-c", f"exec {self.ours(command)}"],
                cwd=self._here,
                env=self.environ,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


def environment(directory: Path) -> dict[str, str]:
    """`deployer` and `tofu` on PATH as `make setup` leaves them, a home of its own, and the user's caches."""
    programs = directory / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = os.environ.get("DEPLOYER_CACHE") or f"{caches}/deployer"
    installed = Path(sys.executable).parent
    named = os.environ.get("DEPLOYER_TOFU", "tofu")
    engine = shutil.which(named) or shutil.which(named, path=f"{installed}:{cache}/bin")
    assert engine, "no OpenTofu: make setup brings it"
    for name, target in (("tofu", Path(engine).absolute()), ("deployer", installed / "deployer")):
        (programs / name).unlink(missing_ok=True)
        (programs / name).symlink_to(target)
    home = directory / "user"
    home.mkdir(exist_ok=True)
    return {
        "PATH": f"{programs}:{installed}:{os.environ['PATH']}:/usr/sbin:/sbin",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TERM": "xterm",
        "XDG_CACHE_HOME": caches,
        "DEPLOYER_CACHE": cache,
        "PYTHONPATH": str(CHECKOUT),  # this very checkout, wherever `deployer` was installed from
    }


def stand_in(shell: Shell) -> None:
    """In the project's configuration files a container takes the place of a virtual machine: seconds, not minutes."""
    module = CHECKOUT / "tests" / "machines" / "container"
    provider = f"provider: {{path: {module}, options: {{owner: {os.getpid()}}}}}"
    for file in shell.directory.rglob("*.yml"):
        text = file.read_text(encoding="utf-8")
        changed = shell.ours(re.sub(r"^provider: local\b.*$", provider, text, flags=re.MULTILINE))
        if changed != text:
            file.write_text(changed, encoding="utf-8")


def take_away(shell: Shell) -> None:
    """Whatever a test left: destroyed, or, where that fails, the example's servers ended by their own pid."""
    for state in shell.directory.rglob("environment.json"):
        home = state.parents[2]
        subprocess.run(
            ["deployer", "--home", str(home), "destroy", state.parent.name, "--yes", "--lock-timeout", "60"],
            env=shell.environ,
            cwd=shell.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=200,
            check=False,
        )
    for note in [*shell.directory.rglob("machines/*/pid"), *shell.directory.rglob("machines/*/qemu.pid")]:
        pid = int(note.read_text().strip() or 0)
        if pid and str(note.parent) in _argv(pid):
            os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def left_running(words: str) -> list[str]:
    """The command lines of processes that have `words` in them."""
    found = (_argv(int(entry.name)) for entry in Path("/proc").glob("[0-9]*"))
    return [argv for argv in found if words in argv]


def _argv(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _commands(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if code := _CODE.match(line):
            command = _typed(code["command"])
            lines.append(f"code=0; {command} || code=$?; [ $code = {code['code']} ] || {{ echo code $code; exit 99; }}")
        else:
            lines.append(_typed(line))
    return lines


def _typed(line: str) -> str:
    # A terminal of its own: who is asked must be somebody.
    if answer := _ANSWER.match(line):
        command = shlex.quote(answer["command"])
        return f"printf '%s\\n' {answer['answer']} | script -qec {command} /dev/null"
    return line
