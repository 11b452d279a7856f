"""One trial's world: a project, a home, a provider whose machines are files, and `deployer` as a process in it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.environment import AnyEnvironment, restore
from deployer.storage.lock import Record, read_record
from tests.torture.faults import Boundary, Fault, install
from tests.watching import until

MODULES = Path(__file__).with_name("modules")
CHECKOUT = Path(__file__).resolve().parents[2]
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Done:
    """How a `deployer` ended: what a shell would report as its code, what it printed, and the boundaries it passed."""

    argv: tuple[str, ...]
    code: int
    out: str
    err: str
    trace: tuple[Boundary, ...]
    seconds: float

    @property
    def spawned(self) -> tuple[str, ...]:
        return tuple(boundary.name for boundary in self.trace if boundary.kind == "spawn")

    @property
    def error(self) -> dict[str, Any]:
        """The error as --output json gave it."""
        return dict(json.loads(self.out)["error"])

    def __str__(self) -> str:
        return f"deployer {' '.join(self.argv)} -> {self.code}\n{self.out[-2000:]}{self.err[-4000:]}"


@dataclass
class Running:
    """A `deployer` at work."""

    argv: tuple[str, ...]
    pid: int
    files: Path  # the beginning of the names of its output files
    began: float = field(default_factory=time.monotonic)
    _code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def send(self, signum: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def wait(self, seconds: float = 180) -> Done:
        """Its end; AssertionError, after killing it, where that does not come."""
        try:
            until(lambda: self.poll() is not None, seconds, f"deployer {' '.join(self.argv)} does not end")
        except AssertionError:
            os.kill(self.pid, signal.SIGKILL)
            raise
        assert self._code is not None
        trace = tuple(Boundary.parse(line) for line in self.said("trace").splitlines())
        seconds = time.monotonic() - self.began
        done = Done(self.argv, self._code, self.said("out"), self.said("err"), trace, seconds)
        assert "Traceback" not in done.out + done.err, done
        assert "internal error" not in done.err, f"{done}\n{_story(done.err)}"
        return done

    def said(self, what: str) -> str:
        """What it has written so far: out, err or trace."""
        try:
            return self.files.with_suffix(f".{what}").read_text(errors="replace")
        except FileNotFoundError:
            return ""


class World:
    """A project `demo` under `root`. Its machines are the files in `things`: that is reality, whatever a state says."""

    def __init__(self, root: Path, engine: str, *, home: Path | None = None) -> None:
        self.root = root
        self.project = root / "project"
        self.home = home or self.project / ".deployer"
        self.things = root / "things"
        self.environment = self.home / "environments" / "demo"
        self.module = self.project / "module"
        self.environ = {
            **{k: v for k, v in os.environ.items() if k in ("HOME", "LANG", "TF_CLI_CONFIG_FILE", "TMPDIR", "USER")},
            "PATH": f"{root / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DEPLOYER_TOFU": engine,
            "DEPLOYER_CACHE": str(root / "cache"),
            "DEPLOYER_HOME": str(self.home),
            "TORTURE_WORLD": str(root),
            "PYTHONPATH": str(CHECKOUT),
        }
        self._runs = 0
        for folder in (self.project, self.things, root / "runs", root / "bin"):
            folder.mkdir(mode=0o700, parents=True)
        (root / "bin" / "tofu").symlink_to(shutil.which(engine) or engine)  # as the pages that people read call it
        shutil.copytree(MODULES / "fast", self.module)

    def write(
        self,
        *,
        hosts: Mapping[str, Mapping[str, Any]],
        options: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Path:
        """Writes demo.yml (JSON is YAML)."""
        spec = {
            "name": "demo",
            "provider": {"path": "./module", "options": {"things": str(self.things), **(options or {})}},
            "hosts": {name: dict(host) for name, host in hosts.items()},
            "ssh": {"user": "root"},
            "cloud_init": False,
            **more,
        }
        path = self.project / "demo.yml"
        path.write_text(json.dumps(spec, indent=1))
        return path

    def start(self, *argv: str, fault: Fault | None = None, umask: int = 0o022, **environ: str) -> Running:
        """`deployer ARGV` in a process and session of its own, forked from here: the same code, without the start."""
        self._runs += 1
        files = self.root / "runs" / f"{self._runs:03d}"
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(argv, files, fault, umask, environ)
        return Running(argv, pid, files)

    def run(self, *argv: str, fault: Fault | None = None, umask: int = 0o022, **environ: str) -> Done:
        return self.start(*argv, fault=fault, umask=umask, **environ).wait()

    def real(self, *argv: str, environ: Mapping[str, str] | None = None, seconds: float = 180) -> Done:
        """`deployer ARGV` as people start it: the installed program."""
        began = time.monotonic()
        ended = subprocess.run(
            ["deployer", *argv],
            cwd=self.project,
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
        assert "Traceback" not in ended.stdout + ended.stderr, ended
        return Done(argv, ended.returncode, ended.stdout, ended.stderr, (), time.monotonic() - began)

    def shell(self, script: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """What a person would paste."""
        return subprocess.run(
            ["/bin/sh", "-euc", script],
            cwd=self.root,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )

    def saved(self) -> AnyEnvironment | None:
        """What the state file says now; raises where it says nothing that can be read."""
        try:
            return restore((self.environment / "environment.json").read_bytes())
        except FileNotFoundError:
            return None

    def state(self) -> str:
        environment = self.saved()
        return environment.state if environment else ""

    def step(self) -> str:
        return getattr(getattr(self.saved(), "progress", None), "step", None) or ""

    def record(self) -> Record | None:
        return read_record(self.environment / "environment.lock")

    def reality(self) -> set[str]:
        """What exists, or has begun to."""
        return {path.name for path in self.things.iterdir()}

    def close(self) -> None:
        """Ends whatever was started here, and removes it all."""
        for _ in range(20):
            found = self.processes()
            if not found:
                break
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            reap()
            time.sleep(0.02)
        shutil.rmtree(self.root, ignore_errors=True)

    def processes(self) -> dict[int, str]:
        """Living processes of this world, by their environment or their command line, without us."""
        mark = os.fsencode(str(self.root))
        found: dict[int, str] = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes()
                ours = mark in words or mark in (path / "environ").read_bytes()
                if ours and words and int(path.name) != os.getpid():
                    found[int(path.name)] = words.replace(b"\0", b" ").decode(errors="replace")
        return found

    def _become(
        self, argv: tuple[str, ...], files: Path, fault: Fault | None, umask: int, environ: Mapping[str, str]
    ) -> None:
        code = 70
        try:
            os.setsid()
            os.umask(umask)
            out = os.open(files.with_suffix(".out"), os.O_WRONLY | os.O_CREAT, 0o600)
            err = os.open(files.with_suffix(".err"), os.O_WRONLY | os.O_CREAT, 0o600)
            for source, target in ((os.open("/dev/null", os.O_RDONLY), 0), (out, 1), (err, 2)):
                os.dup2(source, target)
            os.chdir(self.project)
            os.environ.clear()
            os.environ.update({**self.environ, **environ})
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(signum, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.argv = ["deployer", *argv]
            sys.stdin = open(0, closefd=False)  # noqa: SIM115
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            install(self.home, files.with_suffix(".trace"), fault)
            from deployer.cli.main import main

            code = main()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)


def _story(words: str) -> str:
    """The traceback that an internal error speaks of; its file goes with the world."""
    path = Path(words.partition("the traceback: ")[2].partition("\n")[0])
    return path.read_text(errors="replace") if path.is_file() else ""


def reap() -> None:
    """Takes note of the ends of children that nobody waits for."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@contextlib.contextmanager
def orphanage() -> Iterator[None]:
    """Orphans of killed processes become our children while the block runs (prctl(2)), and do not stay as zombies."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        reap()


def randomness(seed: int, *words: object) -> random.Random:
    return random.Random(f"{seed} {' '.join(map(str, words))}")
