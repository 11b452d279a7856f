"""A user's project folder in which the real `deployer` program is run: what it said, what it saved, what it left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.machines import MODULE
from tests.machines.container.machine import Process, Record
from tests.watching import meanwhile, until

PROGRAM = Path(sys.executable).parent / "deployer"
VARIABLES = "\n".join(f'variable "{name}" {{}}' for name in ("environment", "hosts", "user_data", "ssh_public_key"))
NAME = "box"


@dataclass(frozen=True)
class Result:
    """How a command ended. No traceback and no colour is ever in what it said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass
class Project:
    path: Path
    environ: dict[str, str]
    program: Path = PROGRAM
    name: str = NAME
    patience: float = 240  # seconds for one command
    home: Path = field(init=False)

    def __post_init__(self) -> None:
        self.home = self.path / ".deployer"

    # -- the user's files ---------------------------------------------------------------------------------------------

    def write(self, **spec: Any) -> dict[str, Any]:
        """Writes box.yml; `spec` over a container with one host, no playbooks and short time limits."""
        whole = {
            "name": NAME,
            "provider": self.container(),
            "hosts": {"web": {}},
            "timeouts": {"ssh": 120, "cloud_init": 180},
            **spec,
        }
        (self.path / f"{NAME}.yml").write_text(yaml.safe_dump(whole, sort_keys=False))
        return whole

    def container(self, **options: Any) -> dict[str, Any]:
        return {"path": str(MODULE), "options": {"owner": os.getpid(), **options}}

    def module(self, text: str, name: str = "infra") -> dict[str, Any]:
        """A root module of the user's, beside the file."""
        (self.path / name).mkdir(exist_ok=True)
        (self.path / name / "main.tf").write_text(text)
        return {"path": f"./{name}"}

    def playbook(self, name: str, *tasks: Mapping[str, Any], **play: Any) -> str:
        content = [{"hosts": "all", "gather_facts": False, **play, "tasks": list(tasks)}]
        (self.path / f"{name}.yml").write_text(yaml.safe_dump(content, sort_keys=False))
        return f"./{name}.yml"

    # -- the program --------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.program), *arguments],
            cwd=self.path,
            env={**self.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> Result:
        try:
            out, err = process.communicate(timeout=self.patience)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert "Traceback" not in out + err, err
        assert "\x1b" not in out + err
        return Result(process.returncode, out, err)

    def run(self, *arguments: str, code: int | None = 0, **environ: str) -> Result:
        """Runs it to its end, which must be `code`, if given."""
        result = self.finish(self.start(*arguments, **environ))
        assert code is None or result.code == code, f"{arguments}: {result}"
        return result

    def stopped(self, *arguments: str, when: Callable[[], bool], signum: int = signal.SIGINT) -> Result:
        """Runs it, and asks it once to stop, as soon as `when` is true."""
        process = self.start(*arguments)
        try:
            until(lambda: when() or process.poll() is not None, 120, "the moment to interrupt")
            process.send_signal(signum)
        except BaseException:
            process.kill()
            raise
        return self.finish(process)

    # -- what is there ------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.home / "environments" / self.name

    @property
    def state_file(self) -> Path:
        return self.folder / "environment.json"

    @property
    def state(self) -> dict[str, Any]:
        data = json.loads(self.state_file.read_bytes())
        assert isinstance(data, dict)
        return data

    def in_flight(self, step: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return bool(self.state.get("progress", {}).get("step") == step)
        return False

    @property
    def show(self) -> Any:
        return self.run("show", self.name, "--output", "json").data

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def log_of_events(self) -> str:
        path = self.folder / "events.jsonl"
        return path.read_text() if path.exists() else ""

    @property
    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted((self.folder / "logs").glob("*.log")))

    def machines(self) -> dict[str, Record]:
        """The containers that OpenTofu's state knows, by the key of their resource."""
        state = json.loads((self.folder / "tofu" / "terraform.tfstate").read_bytes())
        found = {
            instance["index_key"]: Record.read(Path(instance["attributes"]["input"]["value"]))
            for resource in state["resources"]
            if resource["name"] == "directory"
            for instance in resource["instances"]
        }
        return {key: record for key, record in found.items() if record}

    def tofu(self, *arguments: str) -> str:
        done = subprocess.run(
            [self.environ["DEPLOYER_TOFU"], *arguments],
            cwd=self.folder / "tofu",
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done
        return done.stdout

    def page(self, port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            return str(answer.read().decode())

    def processes(self) -> dict[int, str]:
        """The processes that name this project in their argv, or work in it."""
        found: dict[int, str] = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                process = Process.of(int(entry.name))
                if str(self.path) in argv + os.readlink(entry / "cwd") and process is not None:
                    found[process.pid] = argv
        return found

    def take_down(self) -> None:
        """Whatever a test left of its machines goes; a test that failed may have left them in any state."""
        if self.state_file.exists():
            with contextlib.suppress(Exception):
                self.run("destroy", self.name, "--yes", code=None)
        tofu = self.folder / "tofu"
        if (tofu / "terraform.tfstate").exists():
            shutil.rmtree(tofu, ignore_errors=True)  # without their home, the next test reaps them


@contextlib.contextmanager
def watched(path: Path) -> Iterator[list[str]]:
    """Every text that is seen in a file which is replaced again and again, without repetitions."""
    seen: list[str] = []
    last: tuple[int, int] | None = None

    def look() -> None:
        nonlocal last
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            if (stat.st_ino, stat.st_mtime_ns) != last:
                last = stat.st_ino, stat.st_mtime_ns
                seen.append(path.read_text())
        time.sleep(0.0005)

    with meanwhile(look):
        yield seen


def plain(text: str) -> str:
    """One space where there were more, for comparing what is laid out for people."""
    return re.sub(r"\s+", " ", text)
