"""The commands of each page, run from top to bottom against real environments, and what they print compared."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.docs.pages import CHECKOUT, Page, read_page
from tests.docs.shell import Shell, free_port, left_running, stand_in

_SAMPLES = ("text", "json")


def follow(shell: Shell, page: Page, *, only: str | None = None) -> None:
    """Does what the page says: writes its files, types its commands, compares what it shows with what is printed."""
    printed = ""
    for block in page.blocks:
        if only is not None and block.section != only:
            continue
        if block.file:
            shell.write(block)
        elif block.language == "sh" and not re.search(r"^make ", block.text, re.MULTILINE):  # test_pages looks at those
            stand_in(shell)
            printed = shell.run(block)
        elif block.language in _SAMPLES and printed:
            assert_shown(block.text, printed, str(block))


def assert_shown(sample: str, printed: str, where: str) -> None:
    """Each line of the sample was printed, in that order; numbers, times and what `...` stands for may differ."""
    lines = iter(plain(line) for line in printed.splitlines())
    for line in sample.splitlines():
        if line.strip(" .") == "":
            continue
        wanted = re.compile(".*".join(re.escape(part) for part in plain(line).split("...")))
        assert any(wanted.fullmatch(shown) for shown in lines), f"{where}: {line!r} was not printed:\n{printed}"


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"/\S*/(?=\.deployer/)", "", line)
    line = re.sub(r"-[0-9a-f]{4}\.log", ".log", line)
    line = re.sub(r"\d+ min \d+ s|\d+(\.\d+)? s\b", "N s", line)
    return re.sub(r"\d+", "N", " ".join(line.split()))


def page(name: str) -> Page:
    return read_page(CHECKOUT / name)


def test_providers(shell: Shell) -> None:
    follow(shell, page("docs/providers.md"))
    assert not left_running(str(shell.directory))


def write_files(shell: Shell) -> None:
    for block in page("docs/providers.md").blocks:
        if block.file:
            shell.write(block)


def test_the_example_outlives_a_renamed_project(shell: Shell) -> None:
    """It looked for its servers at the old place, found none, and called them destroyed."""
    shell.type("mkdir before; cd before")
    write_files(shell)
    shell.type("deployer up servers.yml; cd ..; mv before after; cd after; deployer destroy servers --yes")
    assert not left_running(str(shell.directory))


def test_the_example_fails_where_it_cannot_end_a_server(shell: Shell) -> None:
    write_files(shell)
    # Its kill is refused, as it would be for somebody else's process.
    stop = shell.directory / "infra" / "stop.sh"
    stop.write_text(f"kill() {{ echo 'not permitted' >&2; return 1; }}\n{(text := stop.read_text())}")
    shell.type("deployer up servers.yml")
    assert "not permitted" in shell.type("deployer destroy servers --yes    # exit code 1")
    assert left_running(str(shell.directory))
    stop.write_text(text)
    shell.type("kill -9 $(cat .deployer/environments/servers/tofu/machines/one/pid)")  # that one is gone already
    shell.type("deployer destroy servers --yes")
    assert not left_running(str(shell.directory))


@pytest.mark.container
@pytest.mark.network
def test_what_happens_when_something_fails(shell: Shell) -> None:
    follow(shell, page("README.md"), only="when-something-fails")


@pytest.mark.container
@pytest.mark.network
def test_getting_started(shell: Shell) -> None:
    shell.renamed = {r"\b8080\b": str(free_port())}
    follow(shell, page("docs/getting-started.md"))


def test_command_line(shell: Shell) -> None:
    follow(shell, page("docs/cli.md"))


def test_ansible(shell: Shell) -> None:
    write_files(shell)
    shutil.copytree(CHECKOUT / "inventory", shell.directory / "inventory")
    (shell.directory / "site.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks: [{ansible.builtin.raw: uname}]\n"
    )
    shell.type("deployer up servers.yml")
    copy = f"ansible -i inventory/deployer one -m copy -a 'content=x dest={shell.directory}/copied' 2>&1"
    assert "WARNING" not in shell.type(copy), "the example's machines take files"
    follow(shell, page("docs/ansible.md"))


@pytest.mark.network
def test_installing_without_make(shell: Shell) -> None:
    """From what the checkout tracks, and with a cache of its own, so that OpenTofu is really brought."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    for name in listed.split("\0"):
        if (CHECKOUT / name).is_file():
            target = shell.directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, target)
    (block,) = page("README.md").of("sh", "install-without-make")
    shell.run(block)
    assert "ok  tofu" in shell.type("~/deployer/bin/deployer doctor || true")
