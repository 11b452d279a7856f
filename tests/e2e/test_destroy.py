"""`destroyed` is said only where it is known: lost, damaged and unsaved states of OpenTofu, and the ways out."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.e2e.project import NAME, VARIABLES, Project
from tests.watching import until

pytestmark = pytest.mark.container

MODULE = f"""{VARIABLES}
resource "terraform_data" "thing" {{
  provisioner "local-exec" {{
    command = "touch ../thing; while [ -e ../hold ]; do sleep 0.05; done"
  }}
  provisioner "local-exec" {{
    when    = destroy
    command = "rm -f ../thing"
  }}
}}
output "hosts" {{
  value = {{ web = {{ address = "127.0.0.1", port = 9 }} }}
}}
"""


@pytest.fixture
def made(project: Project) -> Project:
    """An environment with one thing in the world, and no machine that answers."""
    project.write(provider=project.module(MODULE), timeouts={"ssh": 1})
    project.run("up", f"{NAME}.yml", code=1)
    assert thing(project).exists()
    return project


def thing(project: Project) -> Path:
    return project.folder / "thing"


@pytest.mark.parametrize("lost", ["absent", "empty", "damaged"])
def test_a_state_that_is_lost(made: Project, lost: str) -> None:
    state = made.folder / "tofu" / "terraform.tfstate"
    whole = state.read_bytes()
    (made.folder / "tofu" / "terraform.tfstate.backup").unlink(missing_ok=True)
    if lost == "absent":
        state.unlink()
    else:
        state.write_bytes(b"" if lost == "empty" else whole[:100])
    for _ in range(2):
        told = made.run("destroy", NAME, "--yes", code=1)
        assert "not called destroyed" in told.err
        assert "  next:  " in told.err
        assert made.run("status", NAME).out != "destroyed\n"
        assert thing(made).exists()
        assert (made.folder / "tofu" / "main.tf").exists()
    assert "nor planned anew" in made.run("up", NAME, code=1).err, "it would make everything a second time"
    assert made.state["resources"] == "present"
    assert [line for line in made.run("show", NAME, "--refresh").out.splitlines() if "differs" in line]
    state.write_bytes(whole)
    made.run("destroy", NAME, "--yes")
    assert made.state["state"] == "destroyed"
    assert not thing(made).exists()


def test_what_a_lost_state_file_knew_is_not_taken_away_unasked(made: Project) -> None:
    (made.folder / "environment.json").unlink()
    module = made.module(MODULE.replace('"thing"', '"other"').replace("../thing", "../other"))
    made.write(provider=module, timeouts={"ssh": 1})
    told = made.run("up", f"{NAME}.yml", code=2)
    assert "delete  terraform_data.thing" in told.err
    assert (made.state["state"], made.state["resources"]) == ("created", "possible")
    assert thing(made).exists()
    made.run("destroy", NAME, "--yes")
    assert not thing(made).exists(), "by the module that made it"


def test_a_new_environment_does_not_take_away_what_is_anothers(made: Project) -> None:
    """As where a backend of the module's own keeps the state of all environments in one place."""
    shared = made.path / "shared.tfstate"
    shared.write_bytes((made.folder / "tofu" / "terraform.tfstate").read_bytes().replace(b'"thing"', b'"gone"'))
    backend = f'terraform {{\n  backend "local" {{\n    path = "{shared}"\n  }}\n}}\n'
    made.write(name="second", provider=made.module(backend + MODULE, "shared"), timeouts={"ssh": 1})
    told = made.run("up", f"{NAME}.yml", code=1)
    assert "the backend's state has terraform_data.gone, which this environment has not made" in told.err
    assert b'"gone"' in shared.read_bytes()
    made.run("destroy", "second", "--yes")
    assert b'"gone"' in shared.read_bytes(), "what was refused has made nothing, and takes nothing away"


def test_a_new_environment_does_not_take_over_what_is_anothers(made: Project) -> None:
    """Its plan changed nothing, so it was noticed by nobody, until the new one's destroy took the old one's machine."""
    shared = made.path / "shared.tfstate"
    backend = f'terraform {{\n  backend "local" {{\n    path = "{shared}"\n  }}\n}}\n'
    provider = made.module(backend + MODULE.replace("../thing", f"{made.path}/one"), "shared")
    for name in ("first", "second"):
        made.write(name=name, provider=provider, timeouts={"ssh": 1})
        told = made.run("up", f"{NAME}.yml", code=1)
    assert "the backend's state has terraform_data.thing, which this environment has not made" in told.err
    made.run("destroy", "second", "--yes")
    assert (made.path / "one").exists()
    made.run("destroy", "first", "--yes")
    assert not (made.path / "one").exists()


def test_a_module_that_has_lost_a_file_destroys_nothing_until_it_has_it_again(made: Project) -> None:
    """Without its resources' blocks OpenTofu lets go of them and runs no provisioner: the thing stayed, and was called
    destroyed."""
    (made.folder / "tofu" / "main.tf").unlink()
    (made.path / "infra").rename(made.path / "elsewhere")
    told = made.run("destroy", NAME, "--yes", code=1)
    assert "has lost main.tf" in told.err
    assert (made.state["state"], made.state["resources"]) == ("destroy_failed", "present")
    assert thing(made).exists()
    (made.path / "elsewhere").rename(made.path / "infra")
    told = made.run("destroy", NAME, "--yes")
    assert "once more with the module as it is now" in told.err
    assert not thing(made).exists()


def test_a_plan_leaves_what_the_machines_were_made_with(made: Project) -> None:
    (made.path / "infra" / "main.tf").write_text(MODULE + MODULE)
    told = made.run("plan", NAME, code=1)
    assert "Duplicate" in told.err
    made.tofu("plan", "-destroy", "-input=false", "-no-color")
    made.run("destroy", NAME, "--yes")
    assert not thing(made).exists()


@pytest.mark.parametrize("mended", ["before", "after"])
def test_a_module_that_bars_the_way_is_mended_where_it_is(project: Project, mended: str) -> None:
    barred = MODULE.replace('"rm -f ../thing"', '"exit 3"')
    project.write(provider=project.module(barred), timeouts={"ssh": 1})
    project.run("up", f"{NAME}.yml", code=1)
    if mended == "after":
        told = project.run("destroy", NAME, "--yes", code=1)
        assert project.state["state"] == "destroy_failed"
        assert f"the module that counts is in {project.folder}/tofu" in told.err
        # What would let the thing be forgotten, rather than taken away, is not taken over.
        project.module(VARIABLES)
        assert "exit status 3" in project.run("destroy", NAME, "--yes", code=1).err
    project.module(MODULE)
    told = project.run("destroy", NAME, "--yes")
    assert "once more with the module as it is now" in told.err
    assert not thing(project).exists()


def test_the_users_word_that_nothing_is_left(made: Project) -> None:
    (made.folder / "tofu" / "terraform.tfstate").write_bytes(b"")
    told = made.run("destroy", NAME, "--abandon", code=2)
    assert "--yes" in told.err
    assert made.state["state"] == "provision_failed"
    made.run("destroy", NAME, "--abandon", "--yes")
    assert made.state["state"] == "destroyed"
    assert thing(made).exists(), "it was not asked"


def test_a_state_that_opentofu_could_not_save(made: Project) -> None:
    tofu = made.folder / "tofu"
    (tofu / "terraform.tfstate").rename(tofu / "errored.tfstate")
    told = made.run("destroy", NAME, "--yes", code=1)
    assert "tofu state push errored.tfstate" in told.err
    assert thing(made).exists()
    made.tofu("state", "push", "errored.tfstate")
    (tofu / "errored.tfstate").unlink()
    made.run("destroy", NAME, "--yes")
    assert not thing(made).exists()


def test_a_machine_that_died_while_it_was_waited_for(project: Project) -> None:
    died = '"thing" {\n  triggers_replace = fileexists("../dead")'
    project.write(provider=project.module(MODULE.replace('"thing" {', died)), timeouts={"ssh": 1})
    for _ in range(2):  # the second time goes on from there
        project.run("up", f"{NAME}.yml", code=1)
        assert project.state["failure"]["step"] == "wait_ssh"
    (project.folder / "dead").touch()
    assert "replace  terraform_data.thing" in project.run("up", NAME, code=2).err
    project.run("up", NAME, "--yes", code=1)
    applies = [e for e in project.events if (e["kind"], e.get("step")) == ("step_started", "tofu_apply")]
    assert len(applies) == 2


def test_an_apply_that_was_killed(project: Project) -> None:
    project.write(provider=project.module(MODULE), timeouts={"ssh": 1})
    project.run("create", "-f", f"{NAME}.yml")
    (project.folder / "hold").touch()
    process = project.start("up", NAME)
    until(lambda: thing(project).exists(), 120, "the thing is being made")
    (child,) = project.run("show", NAME, "--output", "json").data["busy"]["children"]
    process.kill()
    process.communicate()
    # The tool goes on by itself: nobody else may work on it meanwhile.
    told = project.run("destroy", NAME, "--yes", code=4)
    assert str(child["pid"]) in told.err
    (project.folder / "hold").unlink()
    project.run("up", NAME, "--lock-timeout", "60", code=1)
    assert project.state["failure"]["step"] == "wait_ssh"
    project.run("destroy", NAME, "--yes")
    assert not thing(project).exists()


def test_by_hand_without_deployer(made: Project) -> None:
    made.tofu("destroy", "-auto-approve", "-input=false", "-no-color")
    assert not thing(made).exists()
    assert made.run("status", NAME).out == "provision_failed\n", "nobody guesses"
    made.run("destroy", NAME, "--yes")
    assert made.run("status", NAME).out == "destroyed\n"


def test_a_name_is_free_again(made: Project) -> None:
    made.run("destroy", NAME, "--yes")
    assert made.run("up", f"{NAME}.yml", code=1)
    assert made.state["failure"]["step"] == "wait_ssh"
    assert thing(made).exists()
    made.run("destroy", NAME, "--yes")


def test_a_machine_is_not_handed_to_another_provider(made: Project) -> None:
    """Its destroy provisioners would have gone with the module that made it, and OpenTofu forgets it without them."""
    before = made.state_file.read_bytes()
    made.write(provider="existing", hosts={"web": {"address": "127.0.0.1", "port": 9}}, timeouts={"ssh": 1})
    told = made.run("up", f"{NAME}.yml", "--yes", code=3)
    assert "/infra made the machines, and it alone knows how to remove them" in told.err
    assert f"deployer destroy {NAME}" in told.err
    assert made.state_file.read_bytes() == before
    made.run("destroy", NAME, "--yes")
    assert not thing(made).exists()
    made.run("up", f"{NAME}.yml", code=1)
    assert made.state["failure"]["step"] == "wait_ssh"


def test_machines_that_exist_already_may_answer_after_a_destroy(project: Project) -> None:
    """An apply that was cut short says `possible` of them, too."""
    with socket.create_server(("127.0.0.1", 0)) as machine:
        host = {"address": "127.0.0.1", "port": machine.getsockname()[1]}
        project.write(provider="existing", hosts={"web": host}, cloud_init=False, timeouts={"ssh": 1})
        project.run("up", f"{NAME}.yml", code=1)
        state = project.folder / "environment.json"
        state.write_text(state.read_text().replace('"resources": "none"', '"resources": "possible"'))
        project.run("destroy", NAME, "--yes")
    assert project.state["state"] == "destroyed"
