"""The program itself, as a process, for all that needs no machine: what it prints where, and its exit codes."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import subprocess
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployer import Deployer as Library
from deployer.cli.commands import program as group
from deployer.cli.main import main
from deployer.environment import Host, create, encode
from deployer.errors import Interrupted
from deployer.events import utc_now
from deployer.process import Interrupts
from deployer.storage.lock import own_record, write_record
from tests.watching import until

PROGRAM = (sys.executable, "-m", "deployer.cli.main")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def environ(checkout: Path, tmp_path: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**kept, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


Deployer = Callable[..., Result]


@pytest.fixture
def deployer(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Deployer:
    """Runs a command line in this process, as the executable does; `program` runs the executable's module itself."""

    def run(*arguments: str, **more: str) -> Result:
        with monkeypatch.context() as patched:
            patched.chdir(project)
            patched.delenv("DEPLOYER_HOME", raising=False)
            for name, value in more.items():
                patched.setenv(name, value)
            capfd.readouterr()
            code = main(arguments)
        out, err = capfd.readouterr()
        _check_output(out + err)
        return Result(code, out, err)

    return run


@pytest.fixture
def program(project: Path, environ: dict[str, str]) -> Deployer:
    """Runs the program as a process of its own, with no terminal."""

    def run(*arguments: str, **more: str) -> Result:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=project,
            env={**environ, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        _check_output(done.stdout + done.stderr)
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def _check_output(text: str) -> None:
    assert "Traceback" not in text
    assert "\x1b" not in text


@pytest.fixture
def demo(deployer: Deployer, project: Path) -> Path:
    """An environment `demo` in the state created; its directory."""
    assert deployer("init").code == 0
    assert deployer("create", "-f", "demo.yml").code == 0
    return project / ".deployer" / "environments" / "demo"


def test_from_nothing_to_destroyed_without_a_machine(program: Deployer, project: Path) -> None:
    assert program("init") == Result(0, "Wrote demo.yml\nNext: deployer up demo.yml\n", "")
    assert program("validate", "-f", "demo.yml").out.startswith("demo.yml: ok, environment demo\n")
    assert program("create", "demo.yml").out.startswith("demo: created")
    assert program("status", "demo") == Result(0, "created\n", "")
    assert "state      created" in program("show", "demo").out
    assert program("list").out.splitlines()[1].startswith("demo  created  none")
    destroyed = program("destroy", "demo", "--yes")
    assert destroyed.code == 0
    assert destroyed.out.startswith("demo: destroyed")
    assert program("status", "demo").out == "destroyed\n"
    assert "destroyed" in program("list").out
    assert program("create", "-f", "demo.yml").code == 0, "the name of a destroyed environment is free"


@pytest.mark.parametrize("command", [("init",), ("create", "demo.yml")], ids=["init", "create"])
def test_git_is_kept_out_of_a_new_home(program: Deployer, project: Path, command: tuple[str, ...]) -> None:
    if command != ("init",):
        program("init")
        shutil.rmtree(project / ".deployer")
    assert program(*command).code == 0
    assert (project / ".deployer" / ".gitignore").read_text() == "*\n"


def test_a_home_that_was_there_keeps_what_git_is_told_in_it(program: Deployer, project: Path) -> None:
    (project / ".deployer").mkdir()
    assert program("init").code == 0
    assert not (project / ".deployer" / ".gitignore").exists()


def test_the_log_that_is_shown_is_of_the_last_run_that_had_steps(program: Deployer, demo: Path) -> None:
    (demo / "logs" / "20260101T000000.000000Z-up-1111.log").write_text("first run_started here\n")
    (demo / "logs" / "20260102T000000.000000Z-up-2222.log").write_text("an idle one\n")
    assert program("logs", "demo").out == "first run_started here\n"
    (demo / "logs" / "20260103T000000.000000Z-configure-3333.log").write_text("second run_started here\n")
    (demo / "logs" / "20260104T000000.000000Z-plan-4444.log").write_text("a look\n")
    assert program("logs", "demo").out == "second run_started here\n"


def test_an_init_that_is_refused_makes_nothing(deployer: Deployer, project: Path) -> None:
    """A home beside the file would hide the one above, with its environments."""
    (project / "sub").mkdir()
    (project / "sub" / "demo.yml").touch()
    assert deployer("init", "sub").code == 2
    assert [path.name for path in (project / "sub").iterdir()] == ["demo.yml"]
    assert deployer("init", "two\nlines").code == 2
    assert not (project / "two\nlines").exists()


def test_an_init_writes_through_no_link(deployer: Deployer, project: Path) -> None:
    (project / ".deployer").mkdir()
    (project / "precious").write_text("as it was")
    (project / ".deployer" / "schema.json").symlink_to("../precious")
    assert deployer("init").code == 0
    assert (project / "precious").read_text() == "as it was"
    assert "$schema" in json.loads((project / ".deployer" / "schema.json").read_text())


def test_a_home_whose_path_could_not_be_kept(deployer: Deployer, demo: Path) -> None:
    for named in ("two\nlines", "caf\udce9"):
        for arguments in (("list",), ("up", "demo.yml"), ("status", "demo"), ("show",)):
            told = deployer("--home", named, *arguments)
            assert (told.code, told.out) == (2, "")
            usage = arguments == ("show",)
            assert (" show --help" if usage else "deployer --home ~/.deployer list") in told.err
            assert usage or "its path has a control character, or one that is not UTF-8" in told.err


BAD_INPUT: list[tuple[list[str], int, str]] = [
    (["statsu"], 2, "no such command 'statsu'. Did you mean 'status'?"),
    (["status"], 2, "missing argument 'NAME'"),
    (["status", "demo", "--bogus"], 2, "no such option"),
    (["--output", "xml", "list"], 2, "'xml' is not one of"),
    (["status", "other"], 2, "there is no environment other"),
    (["show", "demo", "--home", "nowhere"], 2, "no such folder: a home is the nearest .deployer upwards, or what"),
    (["status", "../demo"], 2, "is not a name"),
    (["status", "a/b"], 2, "is not a name"),
    (["status", "x" * 300], 2, "is not a name"),
    (["status", ""], 2, "is not a name"),
    (["create", "-f", "demo.yml"], 3, "environment demo is created: create cannot start from there"),
    (["create", "-f", "nowhere.yml"], 2, "nowhere.yml: no such file"),
    (["configure", "demo"], 3, "environment demo is created: configure cannot start from there"),
    (["ssh", "demo"], 3, "no hosts to log in to"),
    (["provision"], 2, "give one FILE-or-NAME\n"),
    (["create"], 2, "give one FILE\n"),
    (["provision", "other", "-f", "demo.yml"], 2, "give one FILE"),
    (["destroy", "demo"], 2, "Nobody can be asked: this is no terminal"),
    (["destroy", "demo", "--yes", "--lock-timeout", "-1"], 2, "is not in the range"),
    (["init"], 2, "exists already"),
    (["--home", "/proc/nowhere", "create", "-f", "demo.yml"], 1, "/proc"),
    (["inventory", "--list", "--host", "web"], 2, "either --list or --host"),
    (["inventory", "--list", "--home", "nowhere"], 2, "there is no home "),
]


@pytest.mark.parametrize(("arguments", "code", "words"), BAD_INPUT, ids=lambda value: str(value)[:30])
def test_bad_input(deployer: Deployer, demo: Path, arguments: list[str], code: int, words: str) -> None:
    before = (demo / "environment.json").read_bytes()
    text = deployer(*arguments)
    assert text.code == code, text
    assert text.out == ""
    assert text.err.startswith("deployer: ")
    assert words in text.err
    assert "  next:  " in text.err
    told = deployer(*arguments, "--output", "json")
    if "xml" not in arguments:
        error = json.loads(told.out)["error"]
        assert (told.code, error["exit_code"]) == (code, code)
        assert error["message"]
    assert (demo / "environment.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty"),
        ("name: [demo", "not valid YAML"),
        ("name: demo\nhost: {}\n", "host: unknown field; did you mean hosts?"),
        ("name: a/b\nhosts: {web: {}}\n", "name: cannot be used as it is"),
        ("name: demo\nhosts: {web: {}}\nconfigure: {playbooks: [./no.yml]}\n", "no such file: "),
    ],
)
def test_a_bad_file(deployer: Deployer, project: Path, content: str, words: str) -> None:
    (project / "bad.yml").write_text(content)
    for command, option in itertools.product(("validate", "create", "up", "provision"), ((), ("-f",))):
        told = deployer(command, *option, "bad.yml")
        assert told.code == 2
        assert "  cause: bad.yml:" in told.err
        assert words in told.err
    assert not (project / ".deployer").exists(), "nothing is made for a file that cannot be used"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"state": "flying"}', '{"state": "created"}', "\x00\xff", "[" * 10_000]
)
def test_a_damaged_state(deployer: Deployer, demo: Path, content: str) -> None:
    state = demo / "environment.json"
    state.write_text(content)
    for command in ("status", "show", "logs", "ssh", "plan", "configure"):
        told = deployer(command, "demo")
        assert told.code == 5, (command, told)
        assert "environment.json" in told.err
        assert (not content) or "another version of deployer" in told.err
    listed = deployer("list", "--output", "json")
    assert listed.code == 0
    assert json.loads(listed.out)[0]["problem"]
    assert state.read_text() == content


def test_an_unreadable_environment_takes_no_hosts_of_others_from_ansible(deployer: Deployer, demo: Path) -> None:
    at = utc_now()
    spec = json.loads((demo / "environment.json").read_text())["spec"] | {"name": "shop"}
    host = Host(address="192.0.2.1", port=22, user="me", ports=(), id=None, console=None)
    making = create("shop", spec, str(demo), at).start_provision("run", at, spec=spec, file=str(demo))
    (demo.parent / "shop").mkdir()
    (demo.parent / "shop" / "environment.json").write_text(encode(making.found_hosts({"web": host}, at)))
    (demo / "environment.json").write_text("{")
    making = making.found_hosts({"web": host}, at)
    other = making.model_copy(
        update={"name": "other", "spec": spec | {"name": "other", "ssh": {"private_key": "/{{x}}"}}}
    )
    (demo.parent / "other").mkdir()
    (demo.parent / "other" / "environment.json").write_text(encode(other))
    told = deployer("inventory", "--list")
    assert told.code == 0
    assert json.loads(told.out)["env_shop"]["hosts"] == ["web"]
    assert "env_other" not in told.out
    assert "warning: environment demo is not in the inventory" in told.err
    assert str(demo / "environment.json") in told.err
    assert "warning: environment other is not in the inventory: the path /{{x}} cannot be used" in told.err
    told = deployer("inventory", "other", "--list")
    assert (told.code, told.out) == (1, "")
    told = deployer("inventory", "demo", "--list")
    assert (told.code, told.out) == (5, "")
    told = deployer("inventory", "")
    assert (told.code, told.out) == (2, "")
    assert "'' is not a name" in told.err


def test_common_options_before_and_after_the_command(deployer: Deployer, demo: Path, tmp_path: Path) -> None:
    home = str(demo.parent.parent)
    elsewhere = str(tmp_path / "elsewhere")
    expected = {"name": "demo", "state": "created"}
    for arguments in (
        ["--output", "json", "status", "demo"],
        ["status", "demo", "--output=json"],
        ["--home", home, "status", "--output", "json", "--progress", "none", "-v", "demo"],
        ["--home", elsewhere, "--output", "text", "status", "demo", "--home", home, "--output", "json"],
    ):
        assert json.loads(deployer(*arguments).out) == expected
    assert deployer("status", "demo", "--home", elsewhere).code == 2
    assert deployer("status", "demo", DEPLOYER_HOME=home).out == "created\n"


def test_make_clean_asks_for_no_destruction_of_what_never_was(
    deployer: Deployer, project: Path, checkout: Path
) -> None:
    def clean() -> subprocess.CompletedProcess[str]:
        argv = ["make", "-f", str(checkout / "Makefile"), f"BIN={Path(sys.executable).parent}", "clean"]
        return subprocess.run(argv, cwd=project, capture_output=True, text=True, timeout=60)

    assert deployer("init").code == 0
    assert deployer("up", "demo.yml", "--yes", DEPLOYER_TOFU="no-such-tofu").code == 6
    assert (project / ".deployer" / "environments" / "demo").is_dir()
    cleaned = clean()
    assert cleaned.returncode == 0, cleaned
    assert not (project / ".deployer").exists()
    assert deployer("create", "-f", "demo.yml").code == 0
    assert "destroy demo" in clean().stderr
    (project / ".deployer" / "environments" / "demo" / "environment.json").write_text("{")
    assert clean().returncode != 0
    assert (project / ".deployer").exists()


def test_what_to_type_next_goes_to_the_home_that_was_named(deployer: Deployer, project: Path) -> None:
    assert deployer("init").code == 0
    home = project / "other home"
    done = deployer("--home", str(home), "create", "-f", "demo.yml")
    assert f"next       deployer --home '{home}' up {project / 'demo.yml'}\n" in done.out
    assert f"environments are kept in {home} from now on" in done.err
    again = deployer("create", "-f", "demo.yml", "--home", str(home), "--output", "json")
    assert f"  next:  deployer --home '{home}' up demo.yml " in again.err
    assert json.loads(again.out)["error"]["help"].startswith(f"deployer --home '{home}' up demo.yml ")
    assert "from now on" not in again.err
    shown = json.loads(deployer("show", "demo", "--home", str(home), "--output", "json").out)
    assert all(command.startswith(f"deployer --home '{home}' ") for command in shown["next_commands"])


def test_what_to_type_by_hand_can_be_pasted(deployer: Deployer, project: Path, tmp_path: Path, engine: Path) -> None:
    """Whatever the folders are called, and where PATH has no OpenTofu."""
    home, cache = project / "what tofu and deployer made", tmp_path / "a cache"
    path = "/usr/bin:/bin"

    def paste() -> str:
        told = deployer("show", "demo", "--home", str(home), PATH=path, DEPLOYER_CACHE=str(cache))
        assert told.code == 5
        command = told.err.rpartition("next:")[2].strip()
        argv = ["/bin/sh", "-c", command]
        pasted = subprocess.run(argv, cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, timeout=60)
        assert (pasted.returncode, pasted.stdout) == (0, ""), pasted.stderr
        return command

    assert deployer("init").code == 0
    create = ("create", "-f", "demo.yml", "--home", str(home))
    assert deployer(*create).code == 0
    environment = home / "environments" / "demo"
    (environment / "environment.json").write_text("")
    paste()
    assert deployer(*create).code == 0
    (environment / "tofu").mkdir()
    state = {"version": 4, "terraform_version": "1.6.0", "serial": 1, "lineage": "x", "outputs": {}, "resources": []}
    (environment / "tofu" / "terraform.tfstate").write_text(json.dumps(state))
    (environment / "environment.json").write_text("")
    (cache / "bin").mkdir(parents=True)
    (cache / "bin" / "tofu").symlink_to(engine)
    assert f"'{cache}/bin/tofu' destroy" in paste()


def test_a_destroyed_one_is_made_anew_from_its_own_file(deployer: Deployer, demo: Path, project: Path) -> None:
    (project / "demo.yml").rename(project / "of mine.yml")
    assert deployer("destroy", "demo", "--yes").code == 0
    assert deployer("create", "-f", "of mine.yml").code == 0
    assert deployer("destroy", "demo", "--yes").code == 0
    next_command = f"deployer up '{project / 'of mine.yml'}'"
    assert next_command in deployer("show", "demo").out
    refused = deployer("up", "demo")
    assert refused.code == 3
    assert "environment demo is destroyed: up cannot start from there" in refused.err
    assert f"next:  {next_command}" in refused.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: None, ""),
        (lambda file: file.write_text(file.read_text() + "timeouts: {ssh: 700}\n"), "demo.yml has changed"),
        (lambda file: file.write_text("name: ["), "demo.yml cannot be used now (demo.yml:1: not valid YAML"),
        (Path.unlink, "demo.yml is not there any more"),
    ],
    ids=["same", "another", "broken", "gone"],
)
def test_a_command_that_goes_by_the_name_says_that_the_file_is_another(
    deployer: Deployer, demo: Path, project: Path, change: Callable[[Path], object], words: str
) -> None:
    change(project / "demo.yml")
    done = deployer("plan", "demo", DEPLOYER_TOFU="no-such-tofu")
    assert done.code == 6
    assert ("this goes by what it said before" in done.err) == bool(words)
    assert words in done.err


def test_a_state_that_is_gone_beside_its_machines(deployer: Deployer, demo: Path) -> None:
    (demo / "tofu").mkdir()
    (demo / "environment.json").unlink()
    for command in (("show", "demo"), ("destroy", "demo", "--yes"), ("up", "demo")):
        done = deployer(*command)
        assert done.code == 5
        assert "it is not there any more" in done.err
        assert "tofu state list" in done.err
    assert "it is not there any more" in deployer("list").out
    assert deployer("create", "-f", "demo.yml").code == 0, "the file makes it anew around what exists"


@pytest.mark.root
def test_a_home_of_somebody_else_that_may_not_be_entered(deployer: Deployer, demo: Path, project: Path) -> None:
    home = project / ".deployer"
    home.chmod(0o700)
    os.chown(home, 65534, 65534)
    named = {**os.environ, "DEPLOYER_HOME": str(home)}
    for name in ("show", "status", "logs", "plan", "destroy", "list"):
        argv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *PROGRAM, name]
        argv += [] if name == "list" else ["demo"]
        done = subprocess.run(argv, env=named, cwd=project, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == (1 if name == "list" else 5), (name, done)
        assert "Permission denied" in done.stderr
        assert "rm " not in done.stderr
        assert "internal error" not in done.stderr


def test_a_file_is_told_such_that_it_is_taken_for_one(deployer: Deployer, project: Path) -> None:
    assert deployer("init").code == 0
    for name in ("demofile", "-x.yml"):
        (project / "demo.yml").rename(project / name)
        assert deployer("validate", "-f", name).out.endswith(f"Next: deployer up ./{name}\n")
        assert deployer("validate", f"./{name}").out.endswith(f"Next: deployer up ./{name}\n")
        (project / name).rename(project / "demo.yml")
    assert "deployer up FILE" in deployer("list").out, "init would refuse: there is a file"
    told = deployer("up", "demo")
    assert told.code == 2
    assert "there is no environment demo in " in told.err
    assert "  next:  deployer up demo.yml\n" in told.err
    for command in ("plan", "provision"):
        told = deployer(command, "demo.yml")
        assert told.code == 2
        assert "  next:  deployer create demo.yml\n" in told.err, "these two make no environment"
    assert deployer("create", "-f", "demo.yml").code == 0
    assert deployer("provision", "demo", DEPLOYER_TOFU="/not/there").code == 6


def test_another_name_in_the_file_does_not_make_the_first_one_forgotten(deployer: Deployer, project: Path) -> None:
    assert deployer("init").code == 0
    assert "of this file" not in deployer("create", "demo.yml").err
    file = project / "demo.yml"
    file.write_text(file.read_text().replace("name: demo", "name: shop"))
    note = "   warning: environment demo is of this file, too, and stays: deployer show demo\n"
    assert note in deployer("create", "demo.yml").err
    assert f"the file {file} is of environment shop now, and this goes by " in deployer("plan", "demo").err
    assert json.loads(deployer("show", "demo", "--output", "json").out)["file"] == str(file)
    for name in ("demo", "shop"):
        assert deployer("destroy", name, "--yes").code == 0
    assert "of this file" not in deployer("create", "demo.yml").err


@pytest.mark.root
@pytest.mark.parametrize("linked", [False, True])
def test_a_home_of_somebody_else_is_used_only_where_it_is_named(
    deployer: Deployer, demo: Path, project: Path, monkeypatch: pytest.MonkeyPatch, *, linked: bool
) -> None:
    """Whoever makes /tmp/.deployer would else run code as everyone who works below /tmp."""
    home = project / ".deployer"
    if linked:
        home.rename(project / "mine")
        home.symlink_to("mine")
    os.chown(home, 65534, 65534, follow_symlinks=False)
    for arguments in (("status", "demo"), ("list",), ("up", "demo.yml"), ("inventory",)):
        told = deployer(*arguments)
        assert (told.code, told.out) == (2, "")
        assert f"the home {home} belongs to nobody, not to you" in told.err
        assert f"next:  deployer --home {home} list" in told.err
    assert deployer("validate", "-f", "demo.yml").code == 0
    (project / "demo.yml").unlink()
    assert deployer("init").code == 2, "a home of one's own is made elsewhere"
    asked = {"_DEPLOYER_COMPLETE": "bash_complete", "COMP_WORDS": "deployer status d", "COMP_CWORD": "2"}
    assert deployer(**asked) == Result(0, "\n", "")
    assert deployer("--home", ".deployer", "status", "demo").out == "created\n"
    assert deployer("status", "demo", DEPLOYER_HOME=str(home)).out == "created\n"
    assert deployer("init", "of-ours").code == 0
    monkeypatch.chdir(project / "of-ours")
    assert main(["create", "-f", "demo.yml"]) == 0


def test_a_working_directory_that_is_gone(project: Path, environ: dict[str, str]) -> None:
    code = "import os, sys; os.mkdir('inner'); os.chdir('inner'); os.rmdir('../inner'); from deployer.cli import start"
    argv = [sys.executable, "-c", f"{code}; sys.argv[1:] = ['list']; sys.exit(start())"]
    done = subprocess.run(argv, cwd=project, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the working directory is not there any more" in done.stderr


def test_an_interrupt_while_the_program_is_loaded_shows_no_traceback(project: Path, environ: dict[str, str]) -> None:
    interrupting = "import sys, os, signal; sys.meta_path.insert(0, type('', (), {'find_spec': lambda *a: "
    interrupting += "os.kill(os.getpid(), signal.SIGINT) if a[0] == 'deployer.cli.commands' else None}))"
    done = subprocess.run(
        [sys.executable, "-c", f"from deployer.cli import start; {interrupting}; sys.exit(start())"],
        cwd=project, env=environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_results_as_json(deployer: Deployer, demo: Path) -> None:
    def data(*arguments: str) -> object:
        return json.loads(deployer(*arguments, "--output", "json").out)

    assert data("show", "demo")["state"] == "created"  # type: ignore[index]
    assert data("list")[0]["name"] == "demo"  # type: ignore[index]
    assert data("validate", "-f", "demo.yml")["hosts"] == ["web"]  # type: ignore[index]
    assert data("schema")["type"] == "object"  # type: ignore[index]
    assert data("logs", "demo")["log"].endswith(".log")  # type: ignore[index]
    assert "_meta" in data("inventory")  # type: ignore[operator]
    assert data("destroy", "demo", "--yes")["state"] == "destroyed"  # type: ignore[index]


def test_progress_as_json_lines(deployer: Deployer, demo: Path) -> None:
    told = deployer("destroy", "demo", "--yes", "--progress", "json")
    kinds = [json.loads(line)["kind"] for line in told.err.splitlines()]
    assert kinds[0] in ("run_started", "transition")
    assert kinds[-1] == "run_finished"
    told = deployer("configure", "demo", "--progress", "json")
    assert json.loads(told.err.splitlines()[-1])["error"]["code"] == "wrong_state"


def test_progress_in_a_pipe(program: Deployer, demo: Path) -> None:
    lines = program("destroy", "demo", "--yes").err.splitlines()
    assert lines[0] == "demo: destroy"
    assert lines[-1].startswith("destroy done, ")
    assert program("create", "-f", "demo.yml", "--progress", "none").err == ""


def test_who_holds_the_lock_is_told(deployer: Deployer, demo: Path) -> None:
    with (demo / "environment.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = deployer("destroy", "demo", "--yes", "--output", "json")
        assert told.code == 4
        assert json.loads(told.out)["error"]["code"] == "locked"
        write_record(lock.fileno(), own_record("up"))
        waited = deployer("plan", "demo", "--lock-timeout", "0.3")
        assert waited.code == 4
        assert f"   note: waiting for `deployer up` (pid {os.getpid()}) or its tools\n" in waited.err
        assert deployer("status", "demo").out == "created\n", "readers need no lock"


def test_an_interrupt_before_the_work_begins_names_the_command(demo: Path, project: Path) -> None:
    interrupts = Interrupts()
    interrupts.request()
    with pytest.raises(Interrupted) as caught:
        Library(project / ".deployer", interrupts=interrupts).plan("demo")
    assert caught.value.message == "interrupted by SIGINT at plan"


def test_a_reader_that_goes_away_is_no_error(project: Path, environ: dict[str, str]) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "schema"],
        cwd=project,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


def test_a_full_disk_behind_the_result_is_told(project: Path, environ: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            [*PROGRAM, "schema"],
            cwd=project,
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert told.returncode == 1
    assert told.stderr.startswith("deployer: the result could not be written\n  cause: No space left on device")
    assert "Traceback" not in told.stderr


def test_a_result_longer_than_a_pipe_that_does_not_block(project: Path, environ: dict[str, str]) -> None:
    """Programs on Node.js leave such pipes to their children: what did not fit at once was lost."""
    ours, its = os.pipe()
    os.set_blocking(its, False)
    size = fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(
        [*PROGRAM, "schema"], cwd=project, env=environ, stdout=its, stderr=subprocess.PIPE
    ) as process:
        os.close(its)
        until(lambda: int.from_bytes(fcntl.ioctl(ours, termios.FIONREAD, bytes(4)), sys.byteorder) == size)
        with open(ours, encoding="utf-8") as pipe:
            assert json.load(pipe)["title"]
        assert process.wait(timeout=60) == 0


def test_closed_streams_are_survived(demo: Path, project: Path, environ: dict[str, str]) -> None:
    line = f"{' '.join(PROGRAM)} status demo"
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
        told = subprocess.run(["/bin/sh", "-c", f"{line} {closed}"], cwd=project, env=environ, timeout=60)
        assert told.returncode == 0, closed


def test_a_locale_without_our_letters(program: Deployer, project: Path) -> None:
    (project / "ü.yml").write_text("name: demo\nhosts: {web: {}}\n")
    told = program("validate", "-f", "ü.yml", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert told.code == 0
    assert ".yml: ok" in told.out


def test_every_command_has_help_with_an_example(deployer: Deployer) -> None:
    commands = deployer("--help").out.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    names = [line.split()[0] for line in commands]
    assert names == list(group.commands)
    for name in names:
        told = deployer(name, "-h")
        assert told.code == 0
        assert f"Example:\n    deployer {name}" in told.out
    assert deployer().out == deployer("--help").out


def test_the_shell_completes_commands_and_names(program: Deployer, demo: Path) -> None:
    def complete(words: str, cword: int) -> str:
        return program(_DEPLOYER_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(cword)).out

    assert "plain,status" in complete("deployer sta", 1)
    assert "plain,demo" in complete("deployer status d", 2)
    assert complete("deployer up d", 2).splitlines() == ["plain,demo", "plain,demo.yml"]
    assert complete("deployer up x", 2).splitlines() == ["file,x"]
    assert complete("deployer status x", 2).strip() == ""
    assert complete("deployer ssh demo w", 3).strip() == "", "nothing is there yet"
    assert complete("deployer ssh other w", 3).strip() == ""
    assert "complete -o nosort" in program(_DEPLOYER_COMPLETE="bash_source").out


def test_status_leaves_the_heavy_things_alone(demo: Path, project: Path, environ: dict[str, str]) -> None:
    script = (
        "import sys; from deployer.cli.main import main; main(['status', 'demo']);"
        "print(*sorted({'pydantic', 'yaml', 'ansible_runner', 'python_terraform', 'deployer.config.model',"
        " 'deployer.tofu', 'deployer.ansible', 'deployer.workflows', 'deployer.cli.progress'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project, env=environ, capture_output=True, text=True)
    assert done.stdout == "created\n\n", done.stderr
