"""`deployer` on a terminal of its own, as a person has it: keys typed there go where the kernel sends them."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import time
from types import TracebackType

from tests.torture.world import World
from tests.watching import until


class Terminal:
    """A pseudo terminal with a program in its foreground. Leaving the block closes it, as a window is closed."""

    def __init__(self, world: World, *argv: str, **environ: str) -> None:
        self.text = ""
        self._code: int | None = None
        program = str(next(p for p in map(str, _search(world)) if os.access(p, os.X_OK)))
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(world.project)
                os.execve(program, ["deployer", *argv], {**world.environ, "TERM": "xterm", **environ})
            finally:
                os._exit(71)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.hang_up()
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self, seconds: float = 0.05) -> str:
        """What has been shown since the last time."""
        new = b""
        while self._master >= 0 and select.select([self._master], [], [], seconds)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                break
            if not data:
                break
            new += data
        self.text += new.decode(errors="replace")
        return new.decode(errors="replace")

    def expect(self, words: str, seconds: float = 60) -> None:
        until(lambda: self.read() is None or words in self.text, seconds, f"{words!r} is not shown")

    def hang_up(self) -> None:
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def wait(self, seconds: float = 60) -> int:
        """The exit code; what is shown meanwhile is read, or the program would wait for us."""
        end = time.monotonic() + seconds
        while self.poll() is None:
            self.read(0.02) if self._master >= 0 else time.sleep(0.02)
            assert time.monotonic() < end, f"it does not end in {seconds:g} s: {self.text[-2000:]}"
        self.read(0)
        assert self._code is not None
        return self._code


def _search(world: World) -> list[str]:
    return [f"{folder}/deployer" for folder in world.environ["PATH"].split(":")]
