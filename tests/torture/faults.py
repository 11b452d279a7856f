"""Counts what the program asks of the system at its boundaries, and breaks one of them. Knows nothing of the program.

A boundary is a call that changes a disk or starts a child: opening to write, write, fsync, replace, unlink, mkdir,
flock, spawn. They are counted by name ("fsync environment.json.new" number 7), so that one seen in a clean run is found
again in the next, and a step that somebody adds tomorrow is attacked without anyone remembering.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

WRITING = ("open", "write", "pwrite", "fsync", "mkdir", "replace", "symlink", "ftruncate", "chmod", "sendfile")
REMOVING = ("unlink", "rmdir")


@dataclass(frozen=True)
class Boundary:
    """The `nth` call (from 1) of `kind` on a file of that name."""

    kind: str
    name: str
    nth: int

    def __str__(self) -> str:
        return f"{self.kind} {self.name} #{self.nth}"

    @property
    def is_log(self) -> bool:
        return self.name in ("events.jsonl", "RUN.log")

    @staticmethod
    def parse(text: str) -> Boundary:
        words, _, nth = text.rpartition(" #")
        kind, _, name = words.partition(" ")
        return Boundary(kind, name, int(nth))


@dataclass(frozen=True)
class Fault:
    """What happens at a boundary: `do` is "kill", "int", "term", "hup", "stop", "clock", or the name of an errno that
    the call gives.

    `lasting`: the call kinds that fail from then on, as they do on a disk that is and stays full.
    `jump`: the seconds by which "clock" sets the time of day, for good; negative is back.
    """

    at: Boundary
    do: str
    lasting: tuple[str, ...] = ()
    jump: float = 0.0


def install(root: Path, trace: Path, fault: Fault | None) -> None:
    """Counts all boundaries below `root` (and pipes, and children) in this process from now on, into `trace`."""
    _Watch(str(root), os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), fault).install()


class _Watch:
    def __init__(self, root: str, trace: int, fault: Fault | None) -> None:
        self._root, self._trace, self._fault = root, trace, fault
        self._seen: Counter[tuple[str, str]] = Counter()
        self._broken = False
        self._write = os.write  # the real one

    def at(self, kind: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        """A boundary is reached. `half` does half of what was asked, for a call that can be cut short."""
        if not path.startswith((self._root, "pipe:", "child:")):
            return
        name = _name(path)
        self._seen[kind, name] += 1
        here = Boundary(kind, name, self._seen[kind, name])
        self._write(self._trace, f"{here}\n".encode())
        fault = self._fault
        if fault is None:
            return
        if self._broken and kind in fault.lasting:
            raise _refusal(fault.do, path)
        if here != fault.at:
            return
        if fault.do in _SIGNALS:
            os.kill(os.getpid(), _SIGNALS[fault.do])
            return
        if fault.do == "clock":
            set_clock(fault.jump)
            return
        half()
        if fault.do == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self._broken = True
        raise _refusal(fault.do, path)

    def install(self) -> None:
        for kind, names in _CALLS.items():
            for name in names:
                setattr(os, name, self._wrapped(kind, getattr(os, name)))
        fcntl.flock = self._wrapped("flock", fcntl.flock)
        os.write = self._wrapped_write("write", os.write)
        os.pwrite = self._wrapped_write("pwrite", os.pwrite)
        os.open = self._wrapped_open(os.open)
        builtins.open = io.open = self._opened
        sys.addaudithook(self._audit)

    def _wrapped(self, kind: str, call: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self.at(kind, _path(args[0], kwargs.get("dir_fd", kwargs.get("src_dir_fd"))))
            return call(*args, **kwargs)

        return wrapper

    def _wrapped_write(self, kind: str, call: Any) -> Any:
        def wrapper(descriptor: int, data: Any, *rest: Any) -> Any:
            self.at(kind, _path(descriptor), lambda: call(descriptor, bytes(data)[: len(data) // 2], *rest))
            return call(descriptor, data, *rest)

        return wrapper

    def _wrapped_open(self, call: Any) -> Any:
        def wrapper(path: Any, flags: int, *rest: Any, **kwargs: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self.at("open", _path(path, kwargs.get("dir_fd")))
            return int(call(path, flags, *rest, **kwargs))

        return wrapper

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *text: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax") == set() or "+" in mode:
            return _real_open(file, mode, buffering, *text, **kwargs)
        watch, path = self, _path(file)
        if not isinstance(file, int):
            self.at("open", path)

        class Raw(io.FileIO):
            def write(self, data: Any, /) -> int:
                half = bytes(data)[: len(data) // 2]
                watch.at("write", path, lambda: super(Raw, self).write(half))
                return int(super().write(data) or 0)

        raw = Raw(file, mode.strip("bt"), kwargs.get("closefd", True), kwargs.get("opener"))
        if "b" in mode:
            return raw if buffering == 0 else io.BufferedWriter(raw)
        words = dict(zip(("encoding", "errors", "newline"), text, strict=False))
        words |= {name: kwargs[name] for name in ("encoding", "errors", "newline") if name in kwargs}
        return io.TextIOWrapper(io.BufferedWriter(raw), **words)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            self.at("spawn", f"child:{_child([os.fsdecode(word) for word in args[1]])}")


def set_clock(jump: float) -> None:
    """The time of day is `jump` seconds later (or, negative, earlier) for this process, whoever has imported the
    clocks; its children and the monotonic clock are as they were."""
    now, now_ns = time.time, time.time_ns

    class AsBefore(type):  # what is a datetime is one still
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, datetime)

    class Set(datetime, metaclass=AsBefore):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=jump)

    others: dict[Any, Any] = {
        now: lambda: now() + jump,
        now_ns: lambda: now_ns() + int(jump * 1e9),
        datetime: Set,
    }
    for module in list(sys.modules.values()):
        for name in ("time", "time_ns", "datetime"):
            found = vars(module).get(name)
            if module not in _CLOCKS and callable(found) and found in others:
                setattr(module, name, others[found])


_CLOCKS = (sys.modules["datetime"], sys.modules[__name__])  # `datetime.datetime` stays a type that others know
_real_open = io.open
_SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "hup": signal.SIGHUP, "stop": signal.SIGSTOP}
_CALLS = {
    "fsync": ("fsync",),
    "replace": ("replace", "rename"),
    "unlink": ("unlink", "remove"),
    "mkdir": ("mkdir",),
    "rmdir": ("rmdir",),
    "symlink": ("symlink",),
    "ftruncate": ("ftruncate",),
    "chmod": ("chmod", "fchmod"),
    "sendfile": ("sendfile",),
}


def _refusal(name: str, path: str) -> OSError:
    number = getattr(errno, name)
    return OSError(number, os.strerror(number), path)


def _path(file: Any, directory: int | None = None) -> str:
    if isinstance(file, int):
        try:
            return os.readlink(f"/proc/self/fd/{file}")
        except OSError:
            return ""
    path = os.fsdecode(file)
    if directory is not None and not path.startswith("/"):
        return f"{_path(directory)}/{path}"
    return os.path.join(os.getcwd(), path) if not path.startswith("/") else path


def _name(path: str) -> str:
    """The file's name without what differs from run to run."""
    if path.startswith("pipe:"):
        return "pipe"
    if path.startswith("child:"):
        return path.removeprefix("child:")
    name = path.rpartition("/")[2]
    name = re.sub(r"^\d{8}T\d{6}\S*?(\.log)?$", r"RUN\1", name)
    return re.sub(r"[._-][a-z0-9_]{8}$", "-TEMPORARY", name)


def _child(argv: list[str]) -> str:
    if argv[3:4] == ["gate"]:
        argv = argv[4:]
    program = argv[0].rpartition("/")[2]
    if program in ("tofu", "terraform") or program.startswith("tofu"):
        return f"tofu-{argv[1]}"
    return "ansible" if "deployer.ansible.child" in argv else program
