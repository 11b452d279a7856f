"""Secrets stay where they belong, files stay ours whatever the umask, and hostile words neither run nor paint."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from tests.torture.arena import Arena, Attack, destroyed, ok
from tests.torture.terminal import Terminal
from tests.torture.world import World
from tests.watching import command_lines

CANARY = "canary-{}-4f1d"
TOKEN, VARIABLE, VAULTED, ENVIRONMENT, PASSWORD = map(
    CANARY.format, ("option", "variable", "vault", "environment", "password")
)
CANARIES = (TOKEN, VARIABLE, VAULTED, ENVIRONMENT, PASSWORD)
PLAYBOOK = """\
- hosts: all
  gather_facts: false
  vars_files: [vaulted.yml]
  tasks:
    - name: Use the secrets without showing them
      set_fact:
        used: "{{ (secret ~ vaulted) | length }}"
    - name: "Fail {{ 'with' if used else '' }} them"
      raw: "cat /nowhere; exit {{ code }}"
      no_log: true
"""
# Where they may be: what OpenTofu and Ansible need, and the environment's own specification. All of it 0600.
_KNOWN = ("environment.json", "terraform.tfvars.json", "terraform.tfstate", "terraform.tfstate.backup",
          "variables.json", "deployer.tfplan", "deployer-applying.tfplan")  # fmt: skip


def canaries(where: Arena, chance: random.Random, number: int) -> None:
    """Five secrets on their ways through a whole life that fails here and there; looked for everywhere."""
    told: list[str] = []
    with where.world(created=False) as world:
        (world.project / "password").write_text("opens the vault")
        vault = world.project / "vaulted.yml"
        vault.write_text(f"vaulted: {VAULTED}\n")
        tool = Path(sys.executable).with_name("ansible-vault")
        words = (str(tool), "encrypt", "--vault-password-file", str(world.project / "password"), str(vault))
        subprocess.run(words, check=True, capture_output=True)  # Ansible takes no stream of ours that does not block
        (world.project / "site.yml").write_text(PLAYBOOK)
        for code, script in ((1, "true"), (0, "exit 4")):
            where.write(
                world,
                options={"token": TOKEN, "script": "true", "pause": "0"},
                cloud_init={"chpasswd": {"users": [{"name": "root", "password": PASSWORD}]}} if code == 0 else False,
                configure={"playbooks": ["./site.yml"], "vault_password_file": "password",
                           "variables": {"secret": VARIABLE, "code": code}},
                timeouts={"ssh": 20, "cloud_init": 2},
            )  # fmt: skip
            with command_lines() as seen:
                environ = {"CLOUD_TOKEN": ENVIRONMENT, "TF_VAR_script": script}
                for argv in (("validate", "-f", "demo.yml"), ("up", "demo.yml", "--yes", "--verbose"), ("plan", "demo"),
                             ("show", "demo", "--output", "json"), ("show", "demo"), ("list", "--output", "json"),
                             ("logs", "demo"), ("inventory", "demo", "--list"), ("provision", "demo", "--yes",
                             "--progress", "json", "--from-start", "--verbose")):  # fmt: skip
                    done = world.real(*argv, environ=environ)
                    assert done.code in (0, 1), done
                    told += [done.out, done.err]
            assert any(b"ansible-playbook" in words for words in seen) or code == 0
            told += [words.decode(errors="replace") for words in seen]
        assert any("failed" in text for text in told)
        for path in world.environment.rglob("*"):
            if path.is_file() and path.name not in _KNOWN:
                told.append(path.read_text(errors="replace"))
        found = {canary for canary in CANARIES for text in told if canary in text}
        assert not found, (found, next(text for text in told if found & {c for c in CANARIES if c in text})[-3000:])
        destroyed(world)


def modes(where: Arena, chance: random.Random, number: int) -> None:
    """Nobody else may read or enter anything of ours, with an umask of 000."""
    with where.world(created=False) as world:
        (world.project / "site.yml").write_text("- hosts: all\n  gather_facts: false\n  tasks: [{raw: 'true'}]\n")
        where.write(world, configure={"playbooks": ["./site.yml"]})
        ok(world.run("up", "demo.yml", umask=0))
        assert world.run("provision", "demo", "--from-start", "--yes", umask=0, DEPLOYER_TOFU="/bin/false").code == 6
        open_to_others = [
            f"{path.relative_to(world.home)} {path.lstat().st_mode & 0o777:o}"
            for path in (world.home, *world.home.rglob("*"))
            if not path.is_symlink() and path.lstat().st_mode & 0o077
        ]
        assert not open_to_others, open_to_others
        destroyed(world)


HOSTILE = "\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e$(touch pwned)`touch pwned`;touch pwned\r"


def hostile(where: Arena, chance: random.Random, number: int) -> None:
    """Words from files, modules and children that would run in a shell or paint a terminal."""
    with where.world(created=False, options={"script": f"printf '%s' '{HOSTILE}' >&2; exit 5"}) as world:
        evil = world.project / f"{HOSTILE.replace('/', '')} x.yml"
        evil.write_text(
            '- hosts: all\n  gather_facts: false\n  tasks: [{name: "'
            + json.dumps(HOSTILE)[1:-1]
            + "\", raw: 'true'}]\n"
        )
        with Terminal(world, "up", "demo.yml") as terminal:
            assert terminal.wait() == 1, terminal.text
        _unpainted(terminal.text)
        for argv in (("show", "demo"), ("logs", "demo"), ("list",)):
            done = world.run(*argv)
            _unpainted(done.out + done.err)
        where.write(world, configure={"playbooks": [f"./{evil.name}".replace("\x1b", "")]})
        refused = world.run("validate", "-f", "demo.yml")
        assert refused.code == 2, refused
        _unpainted(refused.out + refused.err)
        quiet = world.project / "$(touch pwned) `touch pwned`;x.yml"
        quiet.write_text(evil.read_text())
        where.write(world, configure={"playbooks": [f"./{quiet.name}"]})
        with Terminal(world, "up", "demo.yml", "--yes", "--verbose") as terminal:
            assert terminal.wait() == 0, terminal.text
        _unpainted(terminal.text)
        for name in ("$(touch pwned)", "../x", "\x1b[31m", "a;b"):
            assert world.run("show", name).code == 2
        addresses(where, world)
        assert not list(world.root.rglob("pwned"))
        destroyed(world)


def addresses(where: Arena, world: World) -> None:
    """A module that gives out an address which ssh would take for an option, or a shell for a command."""
    main = world.module / "main.tf"
    good = main.read_text()
    for evil in ("-oProxyCommand=touch pwned", "$(touch pwned)", "127.0.0.1 -v", "\\u001b[31mx"):
        main.write_text(good.replace("address = host.address", f'address = "{evil.replace("$", "$$")}"'))
        done = world.run("provision", "demo", "--from-start", "--yes")
        assert done.code == 1, done
        assert "hosts.web1.address" in done.err, done
        _unpainted(done.err)
    main.write_text(good)


def _unpainted(text: str) -> None:
    for bad in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\x07"):
        assert bad not in text, (bad, text[-2000:])


ATTACKS = (
    Attack(
        "secrets.canaries",
        10,
        "secrets where they do not belong",
        "five canaries; all command lines in /proc watched; every file and every output searched",
        canaries,
        1,
    ),
    Attack("secrets.modes", 10, "files that others may read", "umask 000", modes, 1),
    Attack(
        "secrets.hostile",
        10,
        "words that would run or paint",
        "from the file, the module, its outputs, its children, playbooks and names, on a pseudo terminal",
        hostile,
        1,
    ),
)
