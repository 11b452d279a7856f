"""What the pages say is compared with the program: links, examples, states, commands, exit codes, steps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer import environment as environments
from deployer.app.deployer import Deployer
from deployer.cli.commands import program
from deployer.config.loading import load_spec
from deployer.errors import DeployerError
from deployer.events import Event
from deployer.storage.folder import EnvironmentFolder
from tests import steps
from tests.docs.pages import CHECKOUT, Block, Page, all_pages, read_page

PAGES = [read_page(path) for path in all_pages()]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.path.relative_to(CHECKOUT)))


def blocks(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in page.blocks if block.language in languages]


def page(name: str) -> Page:
    return read_page(CHECKOUT / name)


def table(page: Page, heading: str) -> list[list[str]]:
    """The rows of the table that begins with `heading`, without that line."""
    lines = page.text[page.text.index(f"| {heading} |") :].splitlines()[2:]
    rows = lines[: next((i for i, x in enumerate(lines) if not x.startswith("|")), None)]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def words(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


@each_page
def test_links_lead_somewhere(page: Page) -> None:
    for link in page.links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in read_page(target).anchors, link


def test_every_page_is_linked_from_the_index() -> None:
    linked = {(CHECKOUT / "docs" / link.partition("#")[0]).resolve() for link in page("docs/README.md").links}
    assert linked >= {path for path in all_pages() if path.parent != CHECKOUT} - {CHECKOUT / "docs" / "README.md"}


@each_page
def test_languages(page: Page) -> None:
    """Each is one of those which something here tries."""
    tried = {"sh", "text", "json", "yaml", "python", "hcl", "mermaid"}
    assert {block.language for block in page.blocks} <= tried


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is validated; a piece of one too, with the fields that every file has; a playbook is parsed."""
    data = yaml.safe_load(block.text)
    if isinstance(data, list):
        (tmp_path / "site.yml").write_text(block.text)
        argv = [str(Path(sys.executable).parent / "ansible-playbook"), "--syntax-check", "site.yml"]
        subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
        return
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_ed25519").write_text("a key\n")
    for playbook in data.get("configure", {}).get("playbooks", ()):
        if playbook.startswith("./"):
            (tmp_path / playbook).write_text("- hosts: all\n")
    if isinstance(provider := data.get("provider"), dict) and "path" in provider:
        module = tmp_path / "project" / provider["path"]
        module.mkdir(parents=True)
        (module / "main.tf").write_text('output "hosts" { value = {} }\n')
    file = tmp_path / "project" / "file.yml"
    file.parent.mkdir(exist_ok=True)
    for playbook in tmp_path.glob("*.yml"):
        playbook.rename(file.parent / playbook.name)
    needed = {"name": "name: page\n", "hosts": "hosts: {web: {}}\n"}
    file.write_text(block.text + "".join(text for field, text in needed.items() if field not in data))
    load_spec(file)


@pytest.mark.parametrize("block", blocks("hcl"), ids=str)
def test_hcl(block: Block, engine: Path) -> None:
    """It is well formed, and as OpenTofu would write it."""
    argv = [str(engine), "fmt", "-check", "-diff", "-"]
    formatted = subprocess.run(argv, input=block.text, capture_output=True, text=True, timeout=60)
    assert (formatted.returncode, formatted.stdout) == (0, ""), formatted.stderr


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json(block: Block) -> None:
    for line in block.text.splitlines():
        json.loads(line)


@each_page
def test_python(page: Page, tmp_path: Path) -> None:
    """A page's pieces follow one another, as in one session."""
    code = "\n".join(block.text for block in page.of("python"))
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True, timeout=120)
    assert not [path for path in tmp_path.rglob("environment.json") if '"destroyed"' not in path.read_text()]


@each_page
def test_states_have_their_names(page: Page) -> None:
    """Whatever looks like a state is one."""
    named = set(re.findall(r"\b(?:created|destroy(?:ed|ing)|(?:provision|configur)(?:ed|ing)|\w+_failed)\b", page.text))
    assert named <= {*steps.STATES, "step_failed", "storage_failed", "apply_fails"}


def test_the_diagram_of_the_states() -> None:
    (diagram,) = page("README.md").of("mermaid")
    edges = set(re.findall(r"^\s*(\S+) --> (\S+)", diagram.text, re.MULTILINE))
    assert {state for edge in edges for state in edge} == {*steps.STATES, "[*]"}
    assert edges - {("[*]", "created"), ("destroyed", "created")} <= transitions()


def test_where_commands_start() -> None:
    rows = {row[0].strip("`"): words(row[1]) for row in table(page("README.md"), "Command")}
    legal = transitions()
    assert rows["provision"] == {before for before, after in legal if after == "provisioning"}
    assert rows["configure"] == {before for before, after in legal if after == "configuring"}
    assert {before for before, after in legal if after == "destroying"} == set(steps.STATES) - rows["destroy"]


def transitions() -> set[tuple[str, str]]:
    """All legal ones, from the methods that the states have."""
    found = set()
    for state, cls in classes().items():
        for method, after in (("start_provision", "provisioning"), ("start_configure", "configuring")):
            found |= {(state, after)} if hasattr(cls, method) else set()
        found |= {(state, "destroying")} if hasattr(cls, "start_destroy") else set()
        for method in ("succeed", "fail"):
            if hasattr(cls, method):
                found.add((state, getattr(cls, method).__annotations__["return"].lower()))
    by_class = {cls.__name__.lower(): state for state, cls in classes().items()}
    return {(before, by_class.get(after, after)) for before, after in found}


def classes() -> dict[str, type[Any]]:
    return {state: next(c for c in all_classes() if c.model_fields["state"].default == state) for state in steps.STATES}


def all_classes() -> list[type[Any]]:
    found = [getattr(environments, name) for name in dir(environments)]
    return [c for c in found if isinstance(c, type) and "state" in getattr(c, "model_fields", {})]


def test_steps() -> None:
    text = page("README.md").text
    told = words(text[text.index("The steps of `provision`") :].split("\n\n")[0])
    assert told >= {*steps.PROVISION, *steps.DESTROY, "render_inventory", "playbook:NAME"}
    sections = page("docs/recovery.md").anchors
    for step in steps.PROVISION[steps.PROVISION.index("tofu_apply") :]:
        assert f"provision_failed-at-{step}" in sections, f"recovery.md does not say what to do after {step}"


def test_every_state_is_on_the_recovery_page() -> None:
    named = {re.split(r"[`,]", row[0].lstrip("[`"))[0] for row in table(page("docs/recovery.md"), "State")}
    assert named >= set(steps.STATES)


def test_commands() -> None:
    rows = {row[0].strip("`"): row[1] for row in table(page("docs/cli.md"), "Command")}
    context = program.make_context("deployer", [], resilient_parsing=True)
    commands = {name: program.get_command(context, name) for name in program.list_commands(context)}
    assert rows == {name: command.short_help for name, command in commands.items() if command}


@each_page
def test_commands_that_are_named_exist(page: Page) -> None:
    context = program.make_context("deployer", [], resilient_parsing=True)
    code = "\n".join([*(b.text for b in page.of("sh")), *re.findall(r"`[^`\n]+`", page.text)])
    starts = r"(?:^|`|bin/|&& )deployer "
    named = re.findall(starts + r"([a-z]+)", code, re.MULTILINE)
    assert set(named) <= set(program.list_commands(context))
    for command, line in re.findall(starts + r"([a-z]+) ([^`\n]*)", code, re.MULTILINE):
        known = {o for c in (program, program.get_command(context, command)) if c for p in c.params for o in p.opts}
        options = re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", line.partition("#")[0].partition(" -- ")[0])
        assert set(options) - {"--help"} <= known, f"deployer {command} {line}"


def test_exit_codes() -> None:
    documented = {int(n) for row in table(page("docs/cli.md"), "Code") for n in re.findall(r"\d+", row[0])}
    raised = {cls.exit_code for cls in subclasses(DeployerError)} | {129, 130, 143}
    assert documented == raised | {0}


def test_error_codes() -> None:
    text = page("docs/cli.md").text
    named = words(text[text.index("`code` is one of") :].split("A `step_failed`")[0]) - {"code"}
    assert named == {cls.code for cls in subclasses(DeployerError)}


def test_events() -> None:
    rows = {row[0].strip("`"): words(row[2]) for row in table(page("docs/cli.md"), "`kind`")}
    for event in subclasses(Event) - {Event}:
        fields = set(event.__dataclass_fields__) - set(Event.__dataclass_fields__)
        assert rows.pop(event.kind) == fields, event.kind
    assert not rows


def subclasses(cls: type[Any]) -> set[type[Any]]:
    return {cls}.union(*(subclasses(sub) for sub in cls.__subclasses__() if sub.__module__.startswith("deployer")))


def test_methods_of_the_library() -> None:
    rows = {name for row in table(page("docs/library.md"), "Method") for name in re.findall(r"`(\w+)\(", row[0])}
    assert rows == {name for name in dir(Deployer) if not name.startswith("_") and callable(getattr(Deployer, name))}


def test_files_of_an_environment() -> None:
    listed = page("docs/architecture.md").of("text", "files-of-an-environment")[0].text
    names = {line.split()[0].rstrip("/") for line in listed.splitlines()[1:]}
    paths = [path for path in vars(EnvironmentFolder(Path("NAME"))).values() if isinstance(path, Path)]
    assert names == {path.parts[1] for path in paths if path.parts[1:]}


def test_rooms() -> None:
    rooms = {row[0].strip("`") for row in table(page("docs/architecture.md"), "Room")}
    packages = {path.parent.name for path in (CHECKOUT / "deployer").glob("*/__init__.py")}
    assert rooms == packages | {path.stem for path in (CHECKOUT / "deployer").glob("[a-z]*.py")}


def test_bundled_playbooks_and_providers() -> None:
    playbooks = {row[0].strip("`") for row in table(page("docs/ansible.md"), "Bundled")}
    assert playbooks == {path.stem for path in (CHECKOUT / "playbooks").glob("*.yml")}
    providers = {row[0].strip("`") for row in table(page("docs/providers.md"), "Provider")}
    assert providers == {path.parent.name for path in (CHECKOUT / "tofu").glob("*/main.tf")}


@each_page
def test_make_targets_exist(page: Page) -> None:
    code = "\n".join([*(b.text for b in page.of("sh")), *re.findall(r"`[^`\n]+`", page.text)])
    makefile = (CHECKOUT / "Makefile").read_text()
    for target in re.findall(r"(?:^|[\s`])make ([a-z-]+)", code):
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target
