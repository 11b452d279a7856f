"""Command lines of ssh, and the keys a known_hosts file pins. `ssh -G` says what the client understood."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from deployer.errors import StepFailed
from deployer.events import one_line
from deployer.remote.readiness import excerpt
from deployer.remote.ssh import Target, forget_host_key, host_key_argv, known_as, pin, read_keys, ssh_argv
from tests.machines import make_key_pair

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ6n8mYqV8mYqV8mYqV8mYqV8mYqV8mYqV8mYqV8mYq"
RSA = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ=="


def target(directory: Path) -> Target:
    return Target(
        name="web", address="192.0.2.7", port=2222, user="deployer", private_key=directory / "id_ed25519",
        known_hosts=directory / "known_hosts", console=None,
    )  # fmt: skip


def understood(argv: tuple[str, ...]) -> dict[str, str]:
    shown = subprocess.run([argv[0], "-G", *argv[1:]], capture_output=True, text=True, check=True).stdout
    return dict(line.split(" ", 1) for line in shown.splitlines() if " " in line)


@pytest.mark.parametrize(
    "name", ["plain", "two words", "50%d", 'a "quoted" one', "back\\slash", "$HOME", "~", "-x", "é"]
)
def test_ssh_understands_every_directory(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    pair = make_key_pair(directory)
    (directory / "known_hosts").write_text(f"[192.0.2.7]:2222 {KEY}\n")
    options = understood(ssh_argv(target(directory), "true"))
    # -G prints the identity before ssh expands it.
    assert options["identityfile"].replace("%%", "%") == str(pair.private)
    assert options["userknownhostsfile"].replace("%%", "%") == str(directory / "known_hosts")
    assert (options["hostname"], options["port"], options["user"]) == ("192.0.2.7", "2222", "deployer")


@pytest.mark.parametrize("name", ["${HOME}", "a\nb"])
def test_a_directory_that_ssh_cannot_be_told_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StepFailed, match="ssh cannot use files"):
        ssh_argv(target(tmp_path / name))


def test_a_first_contact_learns_and_a_pinned_host_must_match(tmp_path: Path) -> None:
    host = target(tmp_path)
    assert understood(ssh_argv(host))["stricthostkeychecking"] == "accept-new"
    host.known_hosts.write_text(f"[192.0.2.7]:2222 {KEY}\n")
    assert understood(ssh_argv(host))["stricthostkeychecking"] == "true"
    assert understood(ssh_argv(replace(host, port=22)))["stricthostkeychecking"] == "accept-new"


def test_the_users_configuration_is_not_read_and_nothing_is_asked(tmp_path: Path) -> None:
    argv = ssh_argv(target(tmp_path), "true")
    options = understood(argv)
    assert argv[1:3] == ("-F", "none")
    assert (options["batchmode"], options["passwordauthentication"], options["identitiesonly"]) == ("yes", "no", "yes")
    assert understood(ssh_argv(target(tmp_path), interactive=True))["batchmode"] == "no"


def test_an_address_is_never_taken_for_an_option(tmp_path: Path) -> None:
    argv = ssh_argv(replace(target(tmp_path), address="-oProxyCommand=touch x"), "uptime")
    assert argv[-3:] == ("--", "-oProxyCommand=touch x", "uptime")


def test_the_type_that_is_pinned_is_asked_for(tmp_path: Path) -> None:
    """A host has keys of several types: another one than the pinned one does not make it another machine."""
    (tmp_path / "known_hosts").write_text(f"[192.0.2.7]:2222 {RSA}\n")
    options = understood(host_key_argv(target(tmp_path), tmp_path / "learned"))
    assert options["hostkeyalgorithms"].startswith("rsa-sha2-512,rsa-sha2-256,")
    assert options["pubkeyauthentication"] == "false"


def test_keys_are_read_by_name(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"# note\n\n@revoked web {RSA}\nweb,[db]:2222 {KEY} comment\nhalf\nweb.example {RSA}\n")
    assert read_keys(file, "web") == read_keys(file, "[db]:2222") == {KEY}
    assert read_keys(file, "db") == read_keys(tmp_path / "absent", "web") == frozenset()
    assert read_keys(file, "other") == frozenset()


def test_pinning_and_forgetting_touch_one_host(tmp_path: Path) -> None:
    file, learned = tmp_path / "known_hosts", tmp_path / "learned"
    file.write_text(f"web {RSA}")  # no newline at the end
    learned.write_text(f"[192.0.2.7]:2222 {KEY}\n")
    pin(file, learned)
    assert file.read_text() == f"web {RSA}\n[192.0.2.7]:2222 {KEY}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    forget_host_key(file, "192.0.2.7", 2222)
    assert file.read_text() == f"web {RSA}\n"
    forget_host_key(tmp_path / "absent", "web", 22)
    assert not (tmp_path / "absent").exists()


def test_known_hosts_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="cannot be kept") as caught:
        read_keys(tmp_path, "web")
    assert caught.value.kind == "storage"


def test_names_are_those_of_known_hosts() -> None:
    assert [known_as("Web", 22), known_as("::1", 22), known_as("::1", 2222)] == ["web", "::1", "[::1]:2222"]
    assert [known_as("0:0:0:0:0:0:0:1", 22), known_as("FE80:00::01", 9)] == ["::1", "[fe80::1]:9"]
    assert [known_as("127.1", 22), known_as("no.such.name", 22), known_as("x", 99999)] == [
        *("127.0.0.1", "no.such.name", "[x]:99999"),
    ]


def test_words_of_machines_are_made_fit() -> None:
    assert one_line("a\r\n\x1b[2Jb\u2028c\u202e  d") == "a [2Jb c d"
    assert len(one_line("x" * 999)) == 600
    assert excerpt("\x1b[0mone\r\r\n\n\rtwo\r\n") == "[0mone\ntwo"
    assert excerpt("\n".join(map(str, range(99)))).split("\n") == [str(n) for n in range(69, 99)]
