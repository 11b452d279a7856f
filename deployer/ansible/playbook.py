"""Runs playbooks: a request in, events out, a few words or an error in the end. Never imports ansible-runner.

ansible-runner takes over signals and heavy imports, so it lives in a child of ours (`deployer.ansible.child`).
"""

import configparser
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from deployer.ansible.results import Findings, Record
from deployer.errors import FailureKind, StepFailed, ToolMissing
from deployer.files import write_private
from deployer.process import Context, ProcessIdentity, Request, Stream, capture, end_trees, identity_of, still_in
from deployer.process import run as run_process
from deployer.veil import veil

# Becomes ansible-playbook, with the same pid: tells it at once (the first event comes a second later), and takes away
# the terminal's input, which ansible-runner fakes and where vars_prompt and pause would wait for ever.
_LAUNCH = 'echo "process:$$"; exec "$@" </dev/null'
_RUNNER = {"binary": "/bin/sh", "ident": "run", "suppress_env_files": True, "quiet": True}

# The allow-list of environment variables. ansible-runner writes the whole environment into its artifacts, so nothing
# may be in it that is a secret.
_PASSED_ON = ("HOME", "LOGNAME", "PATH", "SHELL", "SSH_AUTH_SOCK", "TMPDIR", "TZ", "USER")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_OF_THE_USER = ("ANSIBLE_CONFIG", "ANSIBLE_COLLECTIONS_PATH", "ANSIBLE_ROLES_PATH")
_PREFERRED = {"ANSIBLE_FORKS": "20", "ANSIBLE_PIPELINING": "yes", "ANSIBLE_TIMEOUT": "30"}
_SYSTEM_WIDE = Path("/etc/ansible/ansible.cfg")
_SSH_ARGS = "-C -o ControlMaster=auto -o ControlPersist=60s"  # as Ansible has them where nobody says others

_CLOSE = 'for socket in *; do [ -S "$socket" ] && ssh -O exit -o ControlPath="$socket" closing; done; :'


@dataclass(frozen=True, kw_only=True)
class PlaybookRun:
    """One playbook on all hosts of an inventory. All paths are absolute; `timeout` is in seconds.

    `workspace` is made anew for each command; each playbook gets a directory of its own in it. `sockets` is for the
    connections that are kept. `project` is the folder of the user's configuration file, whose ansible.cfg counts; none
    for a bundled playbook.
    """

    step: str
    playbook: Path
    inventory: Path
    variables: Path
    workspace: Path
    project: Path | None
    vault_password_file: Path | None
    timeout: float
    sockets: Path


@contextmanager
def kept_connections(environ: Mapping[str, str]) -> Iterator[Path]:
    """A private directory for the connections' sockets; when the block is left they are closed. Raises OSError.

    In /tmp, because a Unix socket's path holds about 100 bytes, and homes and $TMPDIR may be deeper than that. Where we
    are killed, each connection ends by itself when it has not been used for a minute.
    """
    with tempfile.TemporaryDirectory(prefix="deployer-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        try:
            yield Path(sockets)
        finally:
            # In a context of its own: the user's Ctrl+C is a reason to close, not to leave off.
            capture(("/bin/sh", "-c", _CLOSE), "close connections", 10, Context(environ), cwd=Path(sockets))


def run_playbook(run: PlaybookRun, context: Context) -> str:
    """Runs the playbook to its end, and says what it did. ansible-playbook is on record, as our child is.

    Raises StepFailed (PLAYBOOK, UNREACHABLE, INPUT, TIMEOUT, TOOL), which tells host, task and message in one
    line; Interrupted when asked to stop; ToolMissing without ansible-playbook; OSError when the disk says no.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f"{run.step.rpartition(':')[2]}-", dir=run.workspace))
    request, register = _request(run, scratch, context.environ), context.register
    environ = playbook_environment(context.environ, project=run.project, scratch=scratch, sockets=run.sockets)
    hidden = veil(json.loads(run.variables.read_text(encoding="utf-8")))
    findings = Findings(run.step, veil=hidden, report=context.report)
    processes: list[ProcessIdentity] = []
    groups = set[int]()

    def hear(stream: Stream, line: str) -> None:
        record: Record = json.loads(line) if stream == "stdout" else {"type": "line", "text": line}
        announced = re.fullmatch(r"process:(\d+)", record.get("text", ""))
        if record["type"] == "stopping":
            groups.clear()
            groups.update(record["groups"])
        elif not announced or processes:
            findings.add(record)
        elif process := identity_of(int(announced[1])):
            processes.append(process)
            if register:
                register.child_started(process, f"ansible-playbook for {run.step}")

    try:
        outcome = run_process(request, replace(context, environ=environ), hear)
    finally:
        end_trees(*processes, *still_in(groups))  # nothing of Ansible's outlives our child, even where that was killed
        for process in processes:
            if register:
                register.child_ended(process)
        shutil.rmtree(scratch / "tmp", ignore_errors=True)  # where Ansible was killed, it left files there
    if did := findings.success:
        return did  # even where a stop was asked for: what is done is done, and the workflow asks again
    if outcome.interrupted:
        context.interrupts.check(run.step)
    if outcome.timed_out:
        message = f"{run.step} did not finish within {run.timeout:g} s"
        detail = f"the last task was '{findings.task or 'none'}'; timeouts.playbook in the file may be too short for it"
        raise StepFailed(message, kind=FailureKind.TIMEOUT, detail=detail)
    raise findings.failure


def ansible_playbook(environ: Mapping[str, str]) -> str:
    """The path of ansible-playbook: beside our own Python, else on PATH. Raises ToolMissing."""
    beside = Path(sys.executable).parent / "ansible-playbook"
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which("ansible-playbook", path=environ.get("PATH"))
    if program is None:
        raise ToolMissing("ansible-playbook was not found", help=f"{sys.executable} -m pip install ansible-core")
    return program


def _request(run: PlaybookRun, scratch: Path, environ: Mapping[str, str]) -> Request:
    if run.project is None:
        (scratch / "ansible.cfg").touch(mode=0o600)  # so that none of the user's applies to what is ours
    ansible = [ansible_playbook(environ), "-i", str(run.inventory), "-e", f"@{run.variables}", str(run.playbook)]
    if run.vault_password_file:
        ansible += ["--vault-password-file", str(run.vault_password_file)]
    runner = _RUNNER | {
        "private_data_dir": str(scratch),
        "project_dir": str(run.project or scratch),
        "cmdline": shlex.join(["-c", _LAUNCH, "launch", *ansible]),
    }
    # A value in a file, because ansible-runner forgets the argument of that name when it writes no files itself.
    write_private(scratch / "env" / "settings", {"pexpect_timeout": 0.5, "suppress_output_file": True})
    # The limit is for the case that we are no longer there to say stop.
    write_private(scratch / "request.json", {"runner": runner, "timeout": run.timeout + 60})
    argv = (sys.executable, "-m", "deployer.ansible.child", str(scratch / "request.json"))
    root = Path(__file__).parents[2]  # where `-m` finds us, installed or not
    return Request(argv=argv, doing=run.step, cwd=root, timeout=run.timeout, grace=15.0, kill_after=10.0)


def playbook_environment(
    inherited: Mapping[str, str], *, project: Path | None, scratch: Path, sockets: Path
) -> dict[str, str]:
    """The whole environment for a playbook: of the user's where `project` is given, else a bundled one. Our preferences
    are in it where the user has no ansible.cfg.

    `scratch` takes Ansible's temporary files, `sockets` its SSH control sockets.
    """
    env = {name: value for name, value in inherited.items() if name in _PASSED_ON}
    for name in _OF_THE_USER if project else ():
        if paths := inherited.get(name):  # relative to where deployer was called, and Ansible runs in the project
            env[name] = os.pathsep.join(os.path.abspath(os.path.expanduser(path)) for path in paths.split(os.pathsep))
    env |= {name: value for name, value in inherited.items() if name.lower() in _PROXIES and "@" not in value}
    env |= {
        # Ansible refuses a locale that is not UTF-8 or not installed, and ssh hands on whatever a laptop has.
        "LC_ALL": "C.UTF-8" if sys.platform == "linux" else "en_US.UTF-8",
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_LOCAL_TEMP": str(scratch / "tmp"),
        # First, because ssh takes the first value it is given: a socket elsewhere would outlive us.
        "ANSIBLE_SSH_ARGS": f"-o ControlPath={sockets}/%C {_ssh_args(env, project) if project else _SSH_ARGS}",
        "ANSIBLE_NOCOLOR": "True",
        "ANSIBLE_FORCE_COLOR": "False",  # it beats the other, and an error's first word would not be found
        "ANSIBLE_NOCOWS": "True",
        "ANSIBLE_DISPLAY_ARGS_TO_STDOUT": "False",
        # Tenths of a second before it sends SIGTERM after SIGINT to what a playbook runs here; by itself it has none.
        "ANSIBLE_WORKER_SHUTDOWN_POLL_COUNT": "300",
        # Or the user's ansible.cfg may pass our inventory over. Ours comes first; a playbook may call Ansible itself.
        "ANSIBLE_INVENTORY_ENABLED": "yaml,host_list,script,auto,ini,toml",
        "ANSIBLE_INVENTORY_PLUGIN_EXTS": ".json,.yaml,.yml",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True",
        # Over the user's ansible.cfg: it would ask on ansible-runner's terminal, where nobody answers.
        "ANSIBLE_ASK_PASS": "False",
        "ANSIBLE_ASK_VAULT_PASS": "False",
        "ANSIBLE_BECOME_ASK_PASS": "False",
    }
    if project is not None and Path(env.get("ANSIBLE_CONFIG") or project / "ansible.cfg").exists():
        return env  # it rules alone
    return _PREFERRED | env


def _ssh_args(env: Mapping[str, str], project: Path) -> str:
    """The user's ssh_args, of the ansible.cfg that Ansible will take; where it cannot be read, Ansible says so."""
    config, home = Path(env.get("ANSIBLE_CONFIG", os.devnull)), env.get("HOME", os.devnull)
    places = (config, config / "ansible.cfg", project / "ansible.cfg", Path(home, ".ansible.cfg"), _SYSTEM_WIDE)
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    with suppress(configparser.Error, UnicodeError, OSError):
        parser.read(next(filter(Path.is_file, places), ()), encoding="utf-8")
    return parser.get("ssh_connection", "ssh_args", fallback=_SSH_ARGS)
