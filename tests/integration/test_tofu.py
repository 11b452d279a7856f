"""OpenTofu itself (and Terraform where it is installed) through our engine: real files, real locks, real signals."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from filelock import FileLock

from deployer.config.model import Timeouts
from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.events import Event, Notice, Output, ResourceProgress
from deployer.process import Context, Interrupts, identity_of
from deployer.tofu.engine import Tofu, tofu_environment
from deployer.tofu.install import this_platform
from deployer.tofu.module import copy_module, module_differs
from deployer.tofu.state import locked_by, look
from deployer.tofu.stream import Change
from tests.watching import command_lines, until

CANARY = "canary-77be0c1d"

MODULE = """
variable "message" {
  type    = string
  default = "hello"
}

variable "token" {
  type      = string
  default   = ""
  sensitive = true
}

resource "terraform_data" "paper" {
  input            = var.message
  triggers_replace = [var.token]
  provisioner "local-exec" {
    command     = "[ -n \\"$TOKEN\\" ] || echo no token; sleep 0.3"
    environment = { TOKEN = var.token }
  }
}

output "hosts" {
  value = { web = { address = terraform_data.paper.output, port = 22 } }
}

output "password" {
  value     = "${var.token}!"
  sensitive = true
}
"""

# Works until the file `hold` is gone, or for ever where it is interrupted before.
SLOW = """
resource "terraform_data" "first" {}

resource "terraform_data" "slow" {
  depends_on = [terraform_data.first]
  provisioner "local-exec" {
    command = "echo working; while [ -e hold ]; do sleep 0.05; done"
  }
}
"""


@dataclass
class Bench:
    """An engine in a folder, with all it reported."""

    binary: Path
    folder: Path
    interrupts: Interrupts = field(default_factory=Interrupts)
    events: list[Event] = field(default_factory=list[Event])
    react: Callable[[Event], None] = lambda event: None

    @property
    def env(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        plugins = self.folder.parent / "plugins"
        plugins.mkdir(exist_ok=True)
        return tofu_environment(kept, plugins)

    def tofu(self, limit: int = 60) -> Tofu:
        def report(event: Event) -> None:
            self.events.append(event)
            self.react(event)

        limits = Timeouts(init=60, plan=60, apply=limit, destroy=limit)
        return Tofu(
            self.binary,
            self.folder,
            limits,
            Context(self.env, self.interrupts, report),
        )

    def write(self, text: str) -> Bench:
        (self.folder / "main.tf").write_text(text)
        return self

    def by_hand(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.binary), *arguments],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def plan(self) -> Path:
        return self.folder / "x.tfplan"

    @property
    def text(self) -> str:
        return "\n".join(json.dumps(event.as_dict()) for event in self.events)

    @property
    def warnings(self) -> list[str]:
        return [e.message for e in self.events if isinstance(e, Notice) and e.level == "warning"]


@pytest.fixture
def bench(any_engine: Path, tmp_path: Path) -> Bench:
    folder = tmp_path / "tofu"
    folder.mkdir()
    return Bench(any_engine, folder)


def test_from_nothing_to_nothing(bench: Bench) -> None:
    tofu = bench.write(MODULE).tofu()
    tofu.init()
    tofu.init()
    tofu.validate()
    plan = tofu.plan(bench.plan)
    assert plan.changes == (Change("terraform_data.paper", "create"),)
    done: list[Change] = []
    tofu.apply(bench.plan, done)
    assert done == [Change("terraform_data.paper", "create")]
    assert tofu.outputs() == {"hosts": {"web": {"address": "hello", "port": 22}}, "password": "!"}
    assert look(bench.folder).condition == "whole"
    assert list(look(bench.folder).resources) == ["terraform_data.paper"]
    assert tofu.plan().empty
    assert tofu.drift() == ()
    progress = [(e.address, e.status) for e in bench.events if isinstance(e, ResourceProgress)]
    expected = [("terraform_data.paper", status) for status in ("start", "says", "done")]
    assert progress == expected
    assert tofu.destroy() == (Change("terraform_data.paper", "delete"),)
    assert not look(bench.folder).resources
    assert tofu.destroy() == ()
    assert (bench.folder / "terraform.tfstate").stat().st_mode & 0o077 == 0
    assert bench.warnings == []


def test_a_change_of_outputs_alone_is_worth_an_apply(bench: Bench) -> None:
    tofu = bench.write(MODULE).tofu()
    tofu.init()
    tofu.plan(bench.plan)
    tofu.apply(bench.plan, [])
    bench.write(MODULE.replace("port = 22", "port = 2222"))
    assert not tofu.plan(bench.plan).empty
    done: list[Change] = []
    tofu.apply(bench.plan, done)
    assert done == []
    assert tofu.outputs()["hosts"]["web"]["port"] == 2222


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ('output "x" {\n', "main.tf line 1"),
        ('output "x"\n  value = 1\n}\n', "Invalid block definition"),  # and then others, which follow from it
        ('module "net" {\n  source = "./nowhere"\n}\n', "main.tf:1"),
        ('resource "nowhere_thing" "x" {}\n', "nowhere: could not connect to"),
        ("oops {\n", "Unsupported block type"),
    ],
)
def test_a_module_that_cannot_be_initialised(bench: Bench, broken: str, words: str) -> None:
    with pytest.raises(StepFailed) as caught:
        bench.write(broken).tofu().init()
    assert words in caught.value.detail
    said = [part.strip() for part in caught.value.detail.split(" / ")]
    assert len(said) == len(set(said)), "init says some errors twice"
    assert caught.value.kind == "tofu"


def test_a_module_that_is_not_valid(bench: Bench) -> None:
    tofu = bench.write('output "a" {\n  value = var.nothing\n}\noutput "b" {\n  value = local.nowhere\n}\n').tofu()
    tofu.init()
    with pytest.raises(StepFailed, match="OpenTofu failed to validate the module") as caught:
        tofu.validate()
    assert "(main.tf:" in caught.value.detail
    assert "(and 1 more, see the log)" in caught.value.detail
    assert "\n" not in caught.value.detail
    logged = [e.line for e in bench.events if isinstance(e, Output) and e.line.startswith("error: ")]
    # In whatever order OpenTofu comes upon them.
    assert {line.rpartition(" ")[2] for line in logged} == {"(main.tf:2)", "(main.tf:5)"}, "the log has all of them"


def test_a_provider_that_does_not_exist(bench: Bench) -> None:
    bench.write('terraform {\n  required_providers { cloud = { source = "example/cloud" } }\n}\n')
    with pytest.raises(StepFailed) as caught:
        mirrored(bench)[0].init()
    assert "example/cloud" in caught.value.detail


def mirrored(bench: Bench) -> tuple[Tofu, Path]:
    """An engine that asks no registry, and the folder which is the only place where it looks."""
    rc, mirror = bench.folder.parent / "tofurc", bench.folder.parent / "mirror"
    mirror.mkdir()
    rc.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n')
    tofu = bench.tofu()
    return replace(tofu, context=replace(tofu.context, environ={**bench.env, "TF_CLI_CONFIG_FILE": str(rc)})), mirror


def test_a_module_that_was_locked_on_another_computer_is_the_same_after_init(bench: Bench) -> None:
    """`init` adds to our copy of its lock file; else the module would be copied and initialised at each run."""
    tofu, mirror = mirrored(bench)
    package = mirror / "example.com/me/cloud" / f"terraform-provider-cloud_1.0.0_{this_platform()}.zip"
    package.parent.mkdir(parents=True)
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("terraform-provider-cloud_v1.0.0", "#!/bin/sh\n")
    source = bench.folder.parent / "infra"
    source.mkdir()
    (source / "main.tf").write_text(
        'terraform {\n  required_providers { cloud = { source = "example.com/me/cloud" } }\n}\n'
    )
    checksum = hashlib.sha256(package.read_bytes()).hexdigest()
    lock = 'provider "example.com/me/cloud" {{\n  version = "1.0.0"\n  hashes = [\n    "zh:{}",\n  ]\n}}\n'
    (source / ".terraform.lock.hcl").write_text(lock.format(checksum))
    copy_module(source, bench.folder)
    tofu.init()
    assert "h1:" in (bench.folder / ".terraform.lock.hcl").read_text(), "it has grown"
    assert not module_differs(source, bench.folder)
    assert not copy_module(source, bench.folder)
    (source / ".terraform.lock.hcl").write_text(lock.format("0" * 64))
    assert module_differs(source, bench.folder)
    (source / ".terraform.lock.hcl").unlink()
    assert module_differs(source, bench.folder)


def test_two_inits_do_not_unpack_at_once(bench: Bench) -> None:
    bench.write('output "x" {\n  value = 1\n}\n')
    cache = Path(bench.env["TF_PLUGIN_CACHE_DIR"])
    with FileLock(cache / ".lock"):
        limits = Timeouts(init=1)
        with pytest.raises(StepFailed, match="another tofu init has had the plugin cache for 1 s") as caught:
            replace(bench.tofu(), limits=limits).init()
        assert caught.value.kind is FailureKind.TIMEOUT
        bench.interrupts.request()
        with pytest.raises(Interrupted, match="waiting for the plugin cache"):
            bench.tofu().init()
        bench.interrupts.count = 0
    bench.tofu().init()


def test_a_variable_without_a_value(bench: Bench) -> None:
    tofu = bench.write('variable "needed" {}\n').tofu()
    tofu.init()
    with pytest.raises(StepFailed, match="No value for required variable") as caught:
        tofu.plan(bench.plan)
    assert "(main.tf:1)" in caught.value.detail


FAILING = """
resource "terraform_data" "fine" {}

resource "terraform_data" "bad" {
  for_each   = toset(["web"])
  depends_on = [terraform_data.fine]
  provisioner "local-exec" {
    command = "echo starting; echo 'no space left on device' >&2; exit 7"
  }
}
"""


def test_a_failed_local_exec_is_told_in_its_own_words(bench: Bench) -> None:
    tofu = bench.write(FAILING).tofu()
    tofu.init()
    tofu.plan(bench.plan)
    done: list[Change] = []
    with pytest.raises(StepFailed) as caught:
        tofu.apply(bench.plan, done)
    assert done == [Change("terraform_data.fine", "create")], "what was done before is told as well"
    assert caught.value.message == 'OpenTofu failed to apply at terraform_data.bad["web"]'
    assert caught.value.detail == "starting / no space left on device (main.tf:7)"
    assert set(look(bench.folder).resources) == {"terraform_data.fine", 'terraform_data.bad["web"]'}
    assert {c.action for c in tofu.plan().changes} == {"replace"}, "it is tainted"
    tofu.destroy()
    assert not look(bench.folder).resources


def test_a_failed_destroy_keeps_what_is_left(bench: Bench) -> None:
    destroyer = 'provisioner "local-exec" {\n when = destroy\n command = "[ ! -e stuck ] || { echo stuck; exit 1; }"\n}'
    tofu = bench.write(f'resource "terraform_data" "x" {{\n{destroyer}\n}}\n').tofu()
    tofu.init()
    tofu.plan(bench.plan)
    tofu.apply(bench.plan, [])
    (bench.folder / "stuck").touch()
    with pytest.raises(StepFailed, match=r"OpenTofu failed to destroy at terraform_data\.x: stuck"):
        tofu.destroy()
    assert list(look(bench.folder).resources) == ["terraform_data.x"]
    (bench.folder / "stuck").unlink()
    assert tofu.destroy() == (Change("terraform_data.x", "delete"),)


def test_a_stale_plan_is_not_applied(bench: Bench) -> None:
    tofu = bench.write(MODULE).tofu()
    tofu.init()
    tofu.plan(bench.plan)
    other = bench.folder / "other.tfplan"
    tofu.plan(other)
    tofu.apply(other, [])
    with pytest.raises(StepFailed, match="stale"):
        tofu.apply(bench.plan, [])


def test_reality_that_drifted(bench: Bench, tmp_path: Path) -> None:
    # Only data of the outside can drift without a provider: an output that follows a file.
    (tmp_path / "address").write_text("192.0.2.1")
    tofu = bench.write(f'output "address" {{\n  value = file("{tmp_path}/address")\n}}\n').tofu()
    tofu.init()
    tofu.plan(bench.plan)
    tofu.apply(bench.plan, [])
    assert tofu.plan().empty
    (tmp_path / "address").write_text("192.0.2.2")
    assert not tofu.plan().empty
    state = (bench.folder / "terraform.tfstate").read_bytes()
    tofu.drift()
    assert (bench.folder / "terraform.tfstate").read_bytes() == state


@pytest.fixture
def held(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """Somebody typed `tofu apply` in the folder, and it is at work; it ends when the file `hold` is removed."""
    bench.write(SLOW).tofu().init()
    (bench.folder / "hold").touch()
    by_hand = bench.by_hand("apply", "-auto-approve", "-no-color")
    try:
        until(lambda: bool(locked_by(bench.folder)) and not by_hand.poll(), what="the lock is held")
        yield by_hand
    finally:
        (bench.folder / "hold").unlink(missing_ok=True)
        by_hand.communicate(timeout=60)


def test_a_hand_typed_command_is_waited_for_by_name(bench: Bench, held: subprocess.Popen[str]) -> None:
    def let_go(event: Event) -> None:
        if isinstance(event, Notice):
            threading.Timer(1.5, (bench.folder / "hold").unlink).start()

    bench.react = let_go
    done = bench.tofu().destroy()
    assert {change.address for change in done} == {"terraform_data.first", "terraform_data.slow"}
    (warning,) = bench.warnings
    assert f"may be locked by process {held.pid}, " in warning
    assert "(OperationTypeApply, since 20" in warning
    assert held.wait(timeout=60) == 0
    assert look(bench.folder).condition == "whole"


def test_a_question_does_not_wait_for_a_hand_typed_command(bench: Bench, held: subprocess.Popen[str]) -> None:
    bench.tofu().plan()
    assert held.poll() is None
    assert bench.warnings == []


def test_a_hand_typed_command_that_does_not_end(bench: Bench, held: subprocess.Popen[str]) -> None:
    with pytest.raises(StepFailed, match=r"tofu destroy took longer than 1 s") as caught:
        bench.tofu(limit=1).destroy()
    assert caught.value.kind == "timeout"
    assert held.poll() is None, "the other one goes on"
    assert locked_by(bench.folder).startswith(f"process {held.pid}, ")


@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_an_interrupt_leaves_the_state_whole_and_unlocked(bench: Bench, command: str) -> None:
    text = SLOW.replace(
        'provisioner "local-exec" {', 'provisioner "local-exec" {\n    when = destroy', command == "destroy"
    )
    tofu = bench.write(text).tofu()
    tofu.init()
    tofu.plan(bench.plan)
    if command == "destroy":
        tofu.apply(bench.plan, [])
    (bench.folder / "hold").touch()

    def stop(event: Event) -> None:
        if isinstance(event, ResourceProgress) and event.message == "working":
            bench.interrupts.request(signal.SIGINT)

    bench.react = stop
    with pytest.raises(Interrupted) as caught:
        tofu.apply(bench.plan, []) if command == "apply" else tofu.destroy()
    assert caught.value.exit_code == 130
    state = look(bench.folder)
    assert state.condition == "whole"
    assert not state.interrupted
    assert "terraform_data.first" in state.resources
    assert locked_by(bench.folder) == ""
    assert any(f"asked tofu {command} to stop" in warning for warning in bench.warnings)
    assert len([w for w in bench.warnings if "to stop" in w]) == 1, "asked once"
    # What was cut short can be taken up again, by hand or by us.
    bench.interrupts, bench.react = Interrupts(), lambda event: None
    (bench.folder / "hold").unlink()
    again = bench.tofu()
    if command == "apply":
        again.plan(bench.plan)
        again.apply(bench.plan, [])
        assert again.plan().empty
    again.destroy()
    assert not look(bench.folder).resources


COUNTING = """#!/usr/bin/env python3
import signal, sys, time
count = 0
def one(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, one)
print("ready", flush=True)
end = time.monotonic() + 30
while time.monotonic() < end and not count:
    time.sleep(0.01)
time.sleep(1)  # for one more, which must not come
print(f"signals: {count}", flush=True)
"""


def test_one_interrupt_is_forwarded_once(tmp_path: Path) -> None:
    program = tmp_path / "counting"
    program.write_text(COUNTING)
    program.chmod(0o755)
    bench = Bench(program, tmp_path)

    def stop(event: Event) -> None:
        if isinstance(event, Output) and event.line == "ready":
            bench.interrupts.request()

    bench.react = stop
    with pytest.raises(Interrupted):
        bench.tofu().destroy()
    assert "signals: 1" in [e.line for e in bench.events if isinstance(e, Output)]


def test_a_secret_is_in_no_argv_and_no_event(bench: Bench) -> None:
    (bench.folder / "terraform.tfvars.json").write_text(json.dumps({"token": CANARY}))
    tofu = bench.write(MODULE).tofu()
    with command_lines() as lines:
        tofu.init()
        tofu.plan(bench.plan)
        tofu.apply(bench.plan, [])
        assert tofu.outputs()["password"] == f"{CANARY}!"
        tofu.drift()
        tofu.destroy()
    seen = {line.decode(errors="replace") for line in lines}
    assert any(str(bench.plan) in argv for argv in seen), "the watcher has seen the apply"
    assert not [argv for argv in seen if CANARY in argv]
    assert CANARY not in bench.text
    assert len(bench.events) > 10


def test_a_killed_command_is_known_as_such(bench: Bench) -> None:
    bench.write(SLOW).tofu().init()
    (bench.folder / "hold").touch()
    by_hand = bench.by_hand("apply", "-auto-approve")
    until(lambda: "since" in locked_by(bench.folder), what="the lock is held, and its note is written")
    by_hand.kill()
    (bench.folder / "hold").unlink()
    by_hand.communicate(timeout=60)
    assert look(bench.folder).interrupted
    assert locked_by(bench.folder) == ""


# Its local-exec sees OpenTofu being killed, and would go on to make something; a server of its own runs already.
KILLER = """
resource "terraform_data" "server" {
  provisioner "local-exec" {
    command = <<-EOT
      trap "" INT TERM
      setsid sleep 300 > log 2>&1 & echo $! > server
      echo $$ > at-work
      kill -KILL $PPID
      sleep 30; touch made; sleep 300
    EOT
  }
}
"""


def test_what_a_killed_opentofu_had_started_ends_with_it(bench: Bench) -> None:
    """Otherwise it makes something when all is said to be taken away. What has a session of its own is a machine."""
    tofu = bench.write(KILLER).tofu()
    tofu.init()
    tofu.plan(bench.plan)
    try:
        with pytest.raises(StepFailed, match="killed by SIGKILL"):
            tofu.apply(bench.plan, [])
        until(lambda: identity_of(int((bench.folder / "at-work").read_text())) is None, what="the local-exec has ended")
        assert not (bench.folder / "made").exists()
    finally:
        os.kill(int((bench.folder / "server").read_text()), signal.SIGKILL)


# Of it OpenTofu ends the shell alone.
SCRIPT = """
resource "terraform_data" "server" {
  provisioner "local-exec" {
    command = <<-EOT
      sleep 300 > log 2>&1 & echo $! > server
      sh -c 'echo $$ > at-work; echo working; sleep 300; touch made'
      true
    EOT
  }
}
"""


def test_what_an_interrupted_opentofu_had_started_ends_with_it(bench: Bench) -> None:
    """As it does where Ctrl+C is typed to OpenTofu itself. What is in the background goes on, there as here."""
    tofu = bench.write(SCRIPT).tofu()
    tofu.init()
    tofu.plan(bench.plan)

    def stop(event: Event) -> None:
        if isinstance(event, ResourceProgress) and event.message == "working":
            bench.interrupts.request(signal.SIGINT)

    bench.react = stop
    try:
        with pytest.raises(Interrupted):
            tofu.apply(bench.plan, [])
        until(lambda: identity_of(int((bench.folder / "at-work").read_text())) is None, what="the script has ended")
        assert not (bench.folder / "made").exists()
        assert identity_of(int((bench.folder / "server").read_text()))
    finally:
        os.kill(int((bench.folder / "server").read_text()), signal.SIGKILL)


def test_a_kill_is_told_as_such_and_not_with_the_warnings_before_it(bench: Bench) -> None:
    killer = 'provisioner "local-exec" {\n command = "kill -KILL $PPID"\n}'
    tofu = bench.write(f'resource "terraform_data" "x" {{\n{killer}\n}}\n').tofu()
    tofu.init()
    tofu.plan(bench.plan)
    nowhere = {"TF_CLI_CONFIG_FILE": str(bench.folder / "nowhere")}  # which is a warning on stderr
    context = Context({**bench.env, **nowhere}, bench.interrupts, bench.events.append)
    with pytest.raises(StepFailed) as caught:
        Tofu(bench.binary, bench.folder, tofu.limits, context).apply(bench.plan, [])
    assert "Unable to open CLI configuration file" in bench.text
    assert str(caught.value).startswith("tofu apply was killed by SIGKILL: perhaps by the system, out of memory")


def test_outputs_of_a_folder_without_a_state(bench: Bench) -> None:
    tofu = bench.write(MODULE).tofu()
    tofu.init()
    assert tofu.outputs() == {}


def test_a_damaged_state_is_an_error_of_opentofu(bench: Bench) -> None:
    tofu = bench.write(MODULE).tofu()
    tofu.init()
    (bench.folder / "terraform.tfstate").write_text('{"version": 4, "resou')
    for command in (tofu.plan, tofu.destroy, tofu.outputs):
        with pytest.raises(StepFailed) as caught:
            command()
        assert caught.value.detail
    assert (bench.folder / "terraform.tfstate").read_text() == '{"version": 4, "resou'
