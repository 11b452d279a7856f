"""Things done by hand behind our back are noticed; and RECOVERY.md's commands, pasted, do what the page says."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

from deployer.environment import Resources
from tests.torture.arena import PLAYBOOK, Arena, Attack, destroyed, nothing_forgotten, ok
from tests.torture.faults import Boundary, Fault
from tests.torture.world import MODULES, World


@dataclass(frozen=True)
class Trouble:
    """A way to fail. `world`: how the world is made, `mended`: how it is when mended."""

    state: str
    step: str
    argv: tuple[str, ...] = ("provision", "demo")
    world: Mapping[str, object] = field(default_factory=dict)
    mended: Mapping[str, object] = field(default_factory=dict)
    module: str = ""  # added to the module, taken away again when it is mended
    fault: Fault | None = None
    before: tuple[tuple[str, ...], ...] = ()


def _spawning(child: str, what: str = "int") -> Fault:
    return Fault(Boundary("spawn", child, 1), what)


REFUSED = """\
output "refused" {
  value = 1
  precondition {
    condition     = var.environment != "demo"
    error_message = "not this one"
  }
}
"""
FAILING = PLAYBOOK.replace('"true"', '"false"')
TROUBLES = {
    "render": Trouble("provision_failed", "render_tofu", module="GONE"),
    "init": Trouble("provision_failed", "tofu_init", module='resource "x" {\n'),
    "validate": Trouble("provision_failed", "tofu_validate", module='output "x" {\n  value = var.nowhere\n}\n'),
    "plan": Trouble("provision_failed", "tofu_plan", module=REFUSED),
    "apply": Trouble("provision_failed", "tofu_apply", world={"options": {"script": "echo the disk is full; exit 3"}}),
    "outputs": Trouble("provision_failed", "read_outputs", module="HOSTS"),
    "ssh": Trouble("provision_failed", "wait_ssh", world={"timeouts": {"ssh": 1}, "port": 1}),
    "playbook": Trouble("configure_failed", "playbook:site", ("up", "demo"), world={"playbook": FAILING},
                        mended={"playbook": PLAYBOOK}),
    "init interrupted": Trouble("provisioning", "tofu_init", fault=_spawning("tofu-init")),
    "plan interrupted": Trouble("provisioning", "tofu_plan", fault=_spawning("tofu-plan")),
    "apply interrupted": Trouble("provisioning", "tofu_apply", fault=_spawning("tofu-apply")),
    "outputs interrupted": Trouble("provisioning", "read_outputs", fault=_spawning("tofu-output")),
    "ssh interrupted": Trouble("provisioning", "wait_ssh", fault=_spawning("ssh")),
    "playbook interrupted": Trouble("configuring", "playbook:site", ("configure", "demo"), fault=_spawning("ansible"),
                                    world={"playbook": PLAYBOOK}, mended={"playbook": PLAYBOOK},
                                    before=(("provision", "demo"),)),
    "destroy interrupted": Trouble("destroying", "tofu_destroy", ("destroy", "demo", "--yes"),
                                   fault=_spawning("tofu-destroy"), before=(("provision", "demo"),)),
}  # fmt: skip


def recovery(where: Arena, chance: random.Random, number: int) -> None:
    """One way to fail; then the page's commands: look; then go on, or take away, with deployer or without."""
    name, trouble = list(TROUBLES.items())[number % len(TROUBLES)]
    way = ("go on", "take everything away", "by hand")[(number // len(TROUBLES) + number) % 3]
    with where.world(created=False) as world:
        _bring_about(where, world, trouble)
        environment = world.saved()
        assert environment is not None
        page = (world.environment / "RECOVERY.md").read_text()
        blocks = sections(page)
        assert trouble.state in page
        assert world.shell("\n".join(blocks["To look"])).returncode == 0
        if way == "go on":
            _mend(where, world, trouble)
            (command,) = blocks["To go on"]
            yes = " --yes" if "destroy" in command else ""  # on a terminal it would ask
            result = world.shell(command + yes)
            assert result.returncode == 0, (name, command, result)
            expected = "destroyed" if trouble.state == "destroying" else None
            assert world.state() in ((expected,) if expected else ("provisioned", "configured")), name
        elif way == "by hand" and environment.resources is not Resources.NONE:
            known = world.reality()
            result = world.shell("\n".join(blocks["Without deployer"]))
            assert result.returncode == 0, (name, result, page)
            assert not world.reality(), (name, known, page)
            listed = world.shell("\n".join(blocks["To see that nothing is left"]))
            assert (listed.returncode, listed.stdout.strip()) == (0, ""), (name, listed, page)
        else:
            result = world.shell("\n".join(blocks["To take everything away"]))
            if result.returncode == 1 and "not called destroyed" in result.stderr:
                way = "destroy was doubtful"
            else:
                assert result.returncode == 0, (name, result)
                assert (world.state(), world.reality()) == ("destroyed", set()), name
        _mend(where, world, trouble)
        if world.state() != "destroyed":
            destroyed(world)


def _bring_about(where: Arena, world: World, trouble: Trouble) -> None:
    options = dict(trouble.world)
    port = options.pop("port", None)
    where.write(world, **options)  # type: ignore[arg-type]
    if port:
        text = (world.project / "demo.yml").read_text()
        (world.project / "demo.yml").write_text(text.replace(f'"port": {where.host.port}', f'"port": {port}'))
    main = world.module / "main.tf"
    if trouble.module == "HOSTS":
        main.write_text(main.read_text().replace("address = host.address,", ""))
    elif trouble.module not in ("", "GONE"):
        (world.module / "trouble.tf").write_text(trouble.module)
    ok(world.run("create", "-f", "demo.yml"))
    if trouble.module == "GONE":
        shutil.rmtree(world.module)
    for argv in trouble.before:
        ok(world.run(*argv))
    done = world.run(*trouble.argv, fault=trouble.fault)
    assert done.code == (130 if trouble.fault else 1), done
    environment = world.saved()
    assert environment is not None
    assert environment.state == trouble.state, done
    failure, progress = getattr(environment, "failure", None), getattr(environment, "progress", None)
    assert (failure.step if failure else progress.step) == trouble.step, done  # type: ignore[union-attr]
    nothing_forgotten(world, done)


def _mend(where: Arena, world: World, trouble: Trouble) -> None:
    """What a person does before going on: file, module or playbook are put right, and the file is taken over."""
    where.write(world, **trouble.mended)  # type: ignore[arg-type]
    shutil.rmtree(world.module, ignore_errors=True)
    shutil.copytree(MODULES / "fast", world.module)
    changed = trouble.world and not trouble.mended
    if changed and world.state() in ("provision_failed", "configure_failed"):
        ok(world.run("up", "demo.yml", "--yes"))


def sections(page: str) -> dict[str, list[str]]:
    """The commands of each block, by the heading or the last line before it."""
    found: dict[str, list[str]] = {}
    for title, body in re.findall(r"(?:^|\n)(?:## )?([^\n`]+?):?\n\n```sh\n(.*?)```", page, re.DOTALL):
        found[title] = body.strip().splitlines()
    return found


def noticed(where: Arena, chance: random.Random, number: int) -> None:
    """destroy, apply, taint, a stopped sshd, another one in its place: `show --refresh` says it, and the next command
    does right."""
    how = ("destroyed", "applied", "tainted", "unreachable", "another")[number % 5]
    with where.world() as world:
        ok(world.run("provision", "demo"))
        tofu = world.environment / "tofu"
        shown = ok(world.run("show", "demo", "--refresh")).out
        assert "differs" not in shown, shown
        scripts = {"destroyed": "tofu destroy -auto-approve", "applied": "tofu apply -auto-approve",
                   "tainted": "tofu taint 'terraform_data.machine[\"web1\"]'"}  # fmt: skip
        if how in scripts:
            result = world.shell(f"cd {tofu} && {scripts[how]}")
            assert result.returncode == 0, result
        others = {"unreachable": where.host.away, "another": where.host.another}
        with others.get(how, nullcontext)():
            shown = ok(world.run("show", "demo", "--refresh")).out
        words = {"destroyed": "would create", "applied": "same: OpenTofu finds everything", "tainted": "would replace",
                 "unreachable": "web1 does not answer", "another": "another machine than web1 answers"}  # fmt: skip
        assert words[how] in shown, shown
        assert world.state() == "provisioned", "looking changes nothing"
        if number % 2:
            ok(world.run("provision", "demo", "--yes"))
            assert world.reality() == {"web1", "web1.began"}
        destroyed(world)


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "by_hand.recovery",
        9,
        "every way to fail or be interrupted, and what RECOVERY.md says then",
        "its commands are pasted: look, go on, take away, by hand, see that nothing is left",
        recovery,
        15,
    ),
    Attack(
        "by_hand.noticed",
        8,
        "destroyed, applied, tainted by hand; unreachable; another machine at the address",
        "tofu typed in the folder; sshd stopped, or started with another key",
        noticed,
        5,
    ),
)
