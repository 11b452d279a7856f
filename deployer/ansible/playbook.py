"""Runs one playbook: a request in, events out, a recap or an error in the end. Refuses to know ansible-runner itself.

ansible-runner takes over signals and heavy imports, so it lives in a child of ours (`deployer.ansible.child`).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from deployer.ansible.connections import close_connections, connections
from deployer.ansible.recap import Findings, Recap
from deployer.ansible.results import Record
from deployer.ansible.settings import environment
from deployer.ansible.tree import end_tree
from deployer.bundled import bundled
from deployer.errors import FailureKind, StepFailed, StorageFailed, ToolMissing
from deployer.events import Notice, Output, Report, TaskProgress, printable
from deployer.process import Interrupts, ProcessIdentity, Register, Request, Stream, identity_of, is_alive
from deployer.process import run as run_process

_KEPT_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class PlaybookRun:
    """One playbook on all hosts of an inventory. All paths are absolute; `timeout` is in seconds.

    `workspace` belongs to one command: a fresh directory is made below it for each playbook; facts and connections are
    kept there between them. `project` is the folder of the user's configuration file: its ansible.cfg, roles,
    collections, group_vars and host_vars count where the playbook is not one of ours.
    """

    step: str
    playbook: Path
    inventory: Path
    variables: Path
    workspace: Path
    project: Path
    vault_password_file: Path | None
    timeout: float
    ssh_key: Path
    known_hosts: Path

    @property
    def is_bundled(self) -> bool:
        return self.playbook.resolve().is_relative_to(bundled("playbooks").resolve())


def run_playbook(run: PlaybookRun, *, interrupts: Interrupts, register: Register, report: Report) -> Recap:
    """Runs the playbook to its end, with ansible-playbook on record in `register` beside our own child.

    Raises StepFailed (PLAYBOOK, UNREACHABLE, INPUT, TIMEOUT, TOOL), whose detail names host, task and message in one
    line; Interrupted when asked to stop; ToolMissing without ansible-playbook; StorageFailed when the disk says no.
    """
    interrupts.check(run.step)
    for path in filter(None, (run.playbook, run.ssh_key, run.known_hosts, run.vault_password_file)):
        if not path.is_file():
            raise StepFailed(f"{run.step}: {path} does not exist", kind=FailureKind.INPUT, detail=f"no file {path}")
    try:
        scratch = _fresh_directory(run)
        request = _request(run, scratch)
    except OSError as error:
        raise StorageFailed(f"cannot prepare {run.step} in {run.workspace}", detail=str(error)) from error
    listener = _Listener(run, register, report)
    try:
        outcome = run_process(
            request, interrupts=interrupts, on_line=listener.line, register=register, on_stopping=listener.stopping
        )
    finally:
        listener.close()
        for leftover in ("artifacts/run/job_events", "tmp", "env"):
            shutil.rmtree(scratch / leftover, ignore_errors=True)
    findings = listener.findings
    if recap := findings.success:
        return recap  # even where a stop was asked for: what is done is done, and the workflow asks again
    if outcome.interrupted:
        interrupts.check(run.step)
    if outcome.timed_out:
        detail = f"the last task was '{findings.task}'" if findings.started else "no task had started"
        raise StepFailed(
            f"{run.step} did not finish within {run.timeout:g} s",
            kind=FailureKind.TIMEOUT,
            detail=detail,
            help="raise timeouts.playbook in the configuration file if that is too short",
        )
    if not findings.ended and outcome.tail:
        findings.problem = outcome.tail[-1]
    raise findings.failure(run.step)


def ansible_playbook() -> str:
    """The path of ansible-playbook: beside our own Python, else on PATH. Raises ToolMissing."""
    beside = Path(sys.executable).parent / "ansible-playbook"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("ansible-playbook")
    if program is None:
        raise ToolMissing("ansible-playbook was not found", help=f"{sys.executable} -m pip install ansible-core")
    return program


def _fresh_directory(run: PlaybookRun) -> Path:
    run.workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
    runs = sorted(run.workspace.parent.iterdir(), key=lambda path: path.lstat().st_mtime, reverse=True)
    for old in [path for path in runs if path.is_dir() and path != run.workspace][_KEPT_RUNS - 1 :]:
        close_connections(old)
        shutil.rmtree(old, ignore_errors=True)
    name = run.step.rpartition(":")[2]
    scratch = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=run.workspace))
    for below in ("env", "home", "inventory", "tmp"):
        (scratch / below).mkdir(mode=0o700)
    return scratch


def _request(run: PlaybookRun, scratch: Path) -> Request:
    argv = [ansible_playbook(), "-i", str(_inventory(run, scratch)), "-e", f"@{run.variables}"]
    if run.vault_password_file:
        argv += ["--vault-password-file", str(run.vault_password_file)]
    # A value in a file, because ansible-runner forgets the argument of that name when it writes no files itself.
    _write(scratch / "env" / "settings", {"pexpect_timeout": 0.5, "suppress_output_file": True})
    if run.is_bundled:
        (scratch / "ansible.cfg").touch(mode=0o600)  # so that none of the user's applies to what is ours
    _write(
        scratch / "request.json",
        {
            "private_data_dir": str(scratch),
            "project_dir": str(scratch if run.is_bundled else run.project),
            "argv": [*argv, str(run.playbook)],
            # Two caches, because the facts that our playbooks gather are fewer than the user's may want.
            "fact_cache": str(run.workspace / ("facts-bundled" if run.is_bundled else "facts")),
            "variables": str(run.variables),
            "timeout": run.timeout + 60,  # for the case that we are no longer there to say stop
        },
    )
    return Request(
        argv=(sys.executable, "-m", "deployer.ansible.child", str(scratch / "request.json")),
        doing=run.step,
        cwd=Path(__file__).parents[2],  # where `-m` finds us, installed or not
        env=environment(
            os.environ,
            project=None if run.is_bundled else run.project,
            scratch=scratch,
            sockets=connections(run.workspace),
        ),
        timeout=run.timeout,
        grace=15.0,
        kill_after=10.0,
    )


def _inventory(run: PlaybookRun, scratch: Path) -> Path:
    """The inventory beside the project's group_vars and host_vars, which Ansible looks for next to it."""
    link = scratch / "inventory" / "hosts.json"
    link.symlink_to(run.inventory)
    for name in ("group_vars", "host_vars"):
        if not run.is_bundled and (run.project / name).is_dir():
            (link.parent / name).symlink_to(run.project / name)
    return link


def _write(path: Path, data: object) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(data, file)


class _Listener:
    """Hears the child: records become events and findings, and ansible-playbook itself goes on record."""

    def __init__(self, run: PlaybookRun, register: Register, report: Report) -> None:
        self._run, self._register, self._report = run, register, report
        self._playbook = run.step.partition(":")[2] or run.step
        self._process: ProcessIdentity | None = None
        self.findings = Findings()

    def line(self, stream: Stream, line: str) -> None:
        if stream == "stderr":
            self._report(Output(source="ansible", line=printable(line)))
            return
        record: Record = {
            key: printable(value) if isinstance(value, str) else value for key, value in json.loads(line).items()
        }
        self.findings.add(record)
        match record["type"]:
            case "process":
                self._process = identity_of(record["pid"])
                if self._process is not None:
                    self._register.child_started(self._process, f"ansible-playbook for {self._run.step}")
            case "line":
                self._report(Output(source="ansible", line=record["text"]))
            case "task":
                words = {name: record.get(name, "") for name in ("task", "status", "host", "message")}
                self._report(TaskProgress(playbook=self._playbook, **words))
            case "notice":
                self._report(Notice(message=f"{self._run.step}: {record['message']}", level="warning"))
            case _:
                pass

    def stopping(self, level: int, seconds: float) -> None:
        how = ("is being stopped", "is being stopped at once", "is being killed")[level - 1]
        message = f"{self._run.step} {how} after {seconds:.0f} s, at the task '{self.findings.task}'"
        self._report(Notice(message=message, level="warning"))

    def close(self) -> None:
        """Nothing of Ansible's outlives our child: where that was killed, we end what it had started."""
        if self._process is not None:
            if is_alive(self._process):
                end_tree(self._process)
            self._register.child_ended(self._process)
