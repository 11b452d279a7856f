"""An environment's root module: a provider's files, kept apart from what lies beside them, and the input variables."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from deployer.errors import Interrupted, StepFailed
from deployer.files import write_private
from deployer.tofu.module import VARIABLES, copy_module, module_differs, module_kept, put_back


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "infra"
    (source / "modules" / "net").mkdir(parents=True)
    (source / "main.tf").write_text("variable hosts { type = any }\n")
    (source / "modules" / "net" / "main.tf").write_text("")
    (source / "start.sh").write_text("#!/bin/sh\n")
    (source / "start.sh").chmod(0o755)
    return source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "environment").mkdir()
    return tmp_path / "environment" / "tofu"


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


MODULE = {"main.tf", "modules/net/main.tf", "start.sh", ".deployer-module.json"}


def test_a_module_is_copied_with_its_folders_and_modes(source: Path, folder: Path) -> None:
    copy_module(source, folder)
    assert names(folder) == MODULE
    assert (folder / "start.sh").stat().st_mode & 0o100
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_belongs_to_another_run_is_never_brought(source: Path, folder: Path) -> None:
    for stranger in (
        "terraform.tfstate",
        "terraform.tfstate.backup",
        "terraform.tfstate.1700000000.backup",
        ".terraform.tfstate.lock.info",
    ):
        (source / stranger).write_text("{}")
    (source / ".terraform" / "providers").mkdir(parents=True)
    (source / ".terraform" / "providers" / "x").write_text("")
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x.pyc").write_text("")
    copy_module(source, folder)
    assert names(folder) == MODULE


def test_a_module_with_a_lock_file(source: Path, folder: Path) -> None:
    (source / ".terraform.lock.hcl").touch()
    copy_module(source, folder)
    assert names(folder) == MODULE | {".terraform.lock.hcl"}
    assert not module_differs(source, folder)


def test_copying_again_follows_the_source_and_leaves_the_rest_alone(source: Path, folder: Path) -> None:
    copy_module(source, folder)
    kept = {"terraform.tfstate": "{}", "terraform.tfvars.json": "{}", "web/disk.qcow2": "disk", "mine.txt": "mine"}
    for name, text in kept.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (source / "start.sh").unlink()
    (source / "new.tf").write_text("")
    (source / "main.tf").write_text("# changed\n")
    copy_module(source, folder)
    assert names(folder) == MODULE - {"start.sh"} | {"new.tf"} | set(kept)
    assert (folder / "main.tf").read_text() == "# changed\n"
    assert {name: (folder / name).read_text() for name in kept} == kept


@pytest.mark.parametrize("manifest", ["", "{", "7"])
def test_a_manifest_that_a_crash_left_removes_nothing(source: Path, folder: Path, manifest: str) -> None:
    copy_module(source, folder)
    (folder / ".deployer-module.json").write_text(manifest)
    copy_module(source, folder)
    assert names(folder) == MODULE
    assert not module_differs(source, folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vm.tf", 'module "vm" {\n  source = "../shared/vm"\n}\n'),
        ("vm.tf", 'module vm { source = "../shared/vm" }\n'),
        ("vm.tf", 'locals { all = fileset(".", "**/*.tf") }\nmodule "vm" { source = "../shared/vm" } # */\n'),
        ("vm.tofu", '# "./x"\nmodule "vm" {source="../shared/vm"}\n'),
        ("modules/vm.tf", 'module "vm" {\n  for_each = {}\n  source = "../../shared/vm"\n}\n'),
        ("vm.tf", 'module "vm" {\n  source = "../shared/vm"\n  code = {\n    source = "../shared/other"\n  }\n}\n'),
        ("vm.tf", 'module "vm" {\n  code = { url = "http://x}" }\n  source = "../shared/vm"\n}\n'),
        ("vm.tf", 'module "vm" {\n  text = <<E\n    site {\n    }\n  E\n  source = "../shared/vm"\n}\n'),
    ],
)
def test_what_a_module_uses_from_beside_it_comes_with_it(source: Path, folder: Path, name: str, text: str) -> None:
    """Modules that several root modules share lie beside them in most repositories."""
    shared = source.parent / "shared"
    for used in ("vm", "disk"):
        (shared / used).mkdir(parents=True)
    (shared / "vm" / "main.tf").write_text('module "disk" {\n  source = "../disk"\n}\n')
    (shared / "disk" / "disk.sh").write_text("#!/bin/sh\n")
    (shared / "other").mkdir()
    (shared / "other" / "main.tf").touch()
    copy_module(source, folder)
    (source / name).write_text(text)
    assert module_differs(source, folder)
    assert copy_module(source, folder)
    beside = {".deployer-beside/shared/vm/main.tf", ".deployer-beside/shared/disk/disk.sh"}
    assert names(folder) == MODULE | {name} | beside
    (told,) = re.findall(r'source ?= ?"(\./[^"]*)"', (folder / name).read_text())
    assert (folder / name).read_text() == text.replace(text.split("source")[1].split('"')[1], told)
    assert (
        (folder / name)
        .parent.joinpath(told, "main.tf")
        .samefile(folder / ".deployer-beside" / "shared" / "vm" / "main.tf")
    )
    assert not module_differs(source, folder)
    (shared / "disk" / "disk.sh").write_text("#!/bin/bash\n")
    assert module_differs(source, folder)
    (source / name).unlink()
    copy_module(source, folder)
    assert names(folder) == MODULE


def test_only_the_sources_are_others_in_the_copy(source: Path, folder: Path) -> None:
    """Not by an override of ours: OpenTofu would drop a misspelt argument then, and the user's own would count less."""
    for used in ("vm", "other"):
        (source.parent / "shared" / used).mkdir(parents=True)
        (source.parent / "shared" / used / f"{used}.tf").touch()
    text = b'module "%s" {\r\n  name = "\xff" # ../shared/vm\n  source = "%s"\n}\n'
    (source / "vm.tf").write_bytes(text % (b"a", b"../shared/vm/.") + text % (b"b", b"../shared/other"))
    (source / "override.tf").write_bytes(text % (b"a", b"../shared/other"))
    copy_module(source, folder)
    vm, other = (b"./.deployer-beside/shared/" + used for used in (b"vm", b"other"))
    assert (folder / "vm.tf").read_bytes() == text % (b"a", vm) + text % (b"b", other)
    assert (folder / "override.tf").read_bytes() == text % (b"a", other)
    assert not module_differs(source, folder)
    (folder / "vm.tf").write_bytes(b"")
    assert module_differs(source, folder)


def test_a_link_to_the_module(source: Path, folder: Path) -> None:
    """OpenTofu works in a folder as it is called without links."""
    (source.parent / "vm").mkdir()
    (source.parent / "vm" / "main.tf").touch()
    (source / "vm.tf").write_text('module "vm" {\n  source = "../vm"\n}\n')
    (source.parent / "elsewhere").mkdir()
    (source.parent / "elsewhere" / "link").symlink_to(source)
    copy_module(source.parent / "elsewhere" / "link", folder)
    assert (folder / ".deployer-beside" / "vm" / "main.tf").is_file()


def test_an_example_that_uses_the_module_around_it(tmp_path: Path, folder: Path) -> None:
    example = tmp_path / "vm" / "examples" / "one"
    example.mkdir(parents=True)
    (tmp_path / "vm" / "main.tf").touch()
    (tmp_path / "vm" / ".git").mkdir()
    (tmp_path / "vm" / ".git" / "config").touch()
    (example / "main.tf").write_text('module "vm" {\n  source = "../../"\n}\n')
    copy_module(example, folder)
    assert 'source = "./.deployer-beside"' in (folder / "main.tf").read_text()
    assert (folder / ".deployer-beside" / "main.tf").is_file()
    assert not (folder / ".deployer-beside" / ".git").exists()


@pytest.mark.parametrize(
    "text",
    [
        '# module "x" { source = "../x" }\n// module "y" { source = "../y" }\n',
        '/* module "x" {\n  source = "../x"\n}\n*/\nlocals {}\n/* { source = "../x" } */\n',
        pytest.param(("a" * 9 + " ") * 9_000, id="words"),
        pytest.param("\n" * 100_000, id="blank lines"),  # it took minutes to find nothing in them
        'output "x" { value = "../x" }\nlocals { resource = "../x" }\n',
        'module "x" { source = "git::https://example.org/x.git//../x" }\n',
        'module "x" { source = "./modules/net" }\nresource "a_file" "y" {\n  source = "../x"\n}\n',
        'module "x" {\n  source = "./modules/net"\n}\nlocals {\n  source = "../x"\n}\n',
        'module "x" {\n  source = "../nowhere"\n}\n',  # OpenTofu says so
        'module "x" {\n  source = "example/x/any"\n  code = { source = "../x" }\n}\n',
    ],
)
def test_what_leads_nowhere_outside(source: Path, folder: Path, text: str) -> None:
    (source.parent / "x").mkdir()
    (source / "vm.tf").write_text(text)
    assert copy_module(source, folder)
    assert names(folder) == MODULE | {"vm.tf"}


def test_a_module_with_our_variables_file_is_refused(source: Path, folder: Path) -> None:
    (source / "terraform.tfvars.json").write_text("{}")
    with pytest.raises(StepFailed, match=r"has a terraform\.tfvars\.json") as caught:
        copy_module(source, folder)
    assert caught.value.kind == "input"
    assert not folder.exists()


def test_variables_are_written_private(source: Path, folder: Path) -> None:
    copy_module(source, folder)
    write_private(folder / VARIABLES, {"environment": "demo", "token": "secret"})
    path = folder / "terraform.tfvars.json"
    assert json.loads(path.read_text()) == {"environment": "demo", "token": "secret"}
    assert path.stat().st_mode & 0o777 == 0o600
    write_private(folder / VARIABLES, {"environment": "demo"})
    assert json.loads(path.read_text()) == {"environment": "demo"}
    assert names(folder) == MODULE | {"terraform.tfvars.json"}


def test_the_environments_own_state_outlives_a_state_beside_the_module(source: Path, folder: Path) -> None:
    # Somebody had tried the module by hand, in its own folder, and tidied up later.
    (source / "terraform.tfstate").write_text("tried by hand")
    copy_module(source, folder)
    (folder / "terraform.tfstate").write_text("the environment's")
    (source / "main.tf").write_text("# changed\n")
    copy_module(source, folder)
    (source / "terraform.tfstate").unlink()
    (source / "main.tf").write_text("# changed again\n")
    copy_module(source, folder)
    assert (folder / "terraform.tfstate").read_text() == "the environment's"


def test_a_home_inside_the_module_is_not_copied_into_itself(source: Path) -> None:
    for home in (".deployer", "state"):
        folder = source / home / "environments" / "demo" / "tofu"
        folder.mkdir(parents=True)
        copy_module(source, folder)
        copy_module(source, folder)
        assert names(folder) == MODULE, home


def test_links_that_lead_nowhere_or_back(source: Path, folder: Path) -> None:
    (source / "docs").mkdir()
    for number in range(3):
        (source / "docs" / f"up{number}").symlink_to("..")
    (source / "other").mkdir()
    (source / "other" / "net").symlink_to("../modules/net")
    (source / "modules" / "net" / "other").symlink_to("../../other")
    (source / "dangling").symlink_to("nothing")
    os.mkfifo(source / "pipe")
    copy_module(source, folder)
    assert names(folder) == MODULE | {"other/net/main.tf"}


@pytest.mark.parametrize("fails", [False, True])
def test_a_module_is_kept(source: Path, folder: Path, fails: bool) -> None:
    copy_module(source, folder)
    write_private(folder / VARIABLES, {"environment": "demo"})
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    modes = {name: (folder / name).stat().st_mode for name in before}
    (source / "main.tf").write_text("# changed\n")
    (source / "start.sh").unlink()
    (source / "modules" / "net" / "main.tf").unlink()
    (source / "new").mkdir()
    (source / "new" / "new.tf").write_text("")
    noted: list[bool] = []
    with suppress(KeyError), module_kept(folder, lambda: noted.append((folder / "new" / "new.tf").exists())):
        assert copy_module(source, folder)
        write_private(folder / VARIABLES, {"environment": "other"})
        assert (folder / "new" / "new.tf").exists()
        (folder / "terraform.tfstate").write_text("{}")
        if fails:
            raise KeyError
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before | {"terraform.tfstate": b"{}"}
    assert {name: (folder / name).stat().st_mode for name in before} == modes
    assert noted == [False], "once, when all is as it was"
    with module_kept(folder, lambda: noted.append(True)):
        write_private(folder / VARIABLES, {"environment": "other"})
    assert noted == [False], "other variables are no other module"
    assert module_differs(source, folder)


def test_an_interrupt_is_told_of_what_was_interrupted(source: Path, folder: Path) -> None:
    def interrupted() -> None:
        raise Interrupted("at init, which is none of the user's business")

    def plan() -> None:
        copy_module(source, folder)
        raise Interrupted("at plan")

    copy_module(source, folder)
    (source / "main.tf").write_text("# changed\n")
    with pytest.raises(Interrupted, match="at plan"), module_kept(folder, interrupted):
        plan()
    noted: list[bool] = []
    put_back(folder, lambda: noted.append(True))
    assert noted == [True], "so it is made good"


def test_a_question_that_was_killed_is_put_back_later(source: Path, folder: Path) -> None:
    copy_module(source, folder)
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    (source / "main.tf").write_text("# changed\n")
    (source / "new.tf").touch()
    kept = module_kept(folder, lambda: None)
    kept.__enter__()  # and is never left
    copy_module(source, folder)
    noted: list[bool] = []
    put_back(folder, lambda: noted.append(True))
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    put_back(folder, lambda: noted.append(True))
    assert noted == [True], "there is nothing more to put back"


@pytest.mark.parametrize("exists", [False, True])
def test_a_copy_that_stopped_half_way_leaves_nothing_for_good(source: Path, folder: Path, exists: bool) -> None:
    copy_module(source, folder)
    before = names(folder)
    for name in ("a.tf", "b.tf", "c.tf"):
        (source / name).touch()
    (folder / "c.tf").mkdir()  # which a file cannot be copied over
    with pytest.raises(OSError, match=r"c\.tf"), module_kept(folder, lambda: None) if exists else nullcontext():
        copy_module(source, folder)
    (folder / "c.tf").rmdir()
    if exists:
        assert names(folder) == before
    for name in ("a.tf", "b.tf", "c.tf"):
        (source / name).unlink()
    copy_module(source, folder)
    assert names(folder) == before


def test_a_file_becomes_a_folder_and_a_folder_a_file(source: Path, folder: Path) -> None:
    copy_module(source, folder)
    (source / "start.sh").unlink()
    (source / "start.sh" / "below").mkdir(parents=True)
    (source / "start.sh" / "below" / "one.sh").touch()
    copy_module(source, folder)
    assert names(folder) == MODULE - {"start.sh"} | {"start.sh/below/one.sh"}
    shutil.rmtree(source / "start.sh")
    (source / "start.sh").touch()
    with module_kept(folder, lambda: None):
        copy_module(source, folder)
        assert names(folder) - {n for n in names(folder) if n.startswith(".deployer-kept")} == MODULE
    assert (folder / "start.sh" / "below" / "one.sh").is_file()
    copy_module(source, folder)
    assert names(folder) == MODULE


def test_whether_the_module_is_another_is_known(source: Path, folder: Path) -> None:
    assert module_differs(source, folder)
    assert copy_module(source, folder)
    (folder / "terraform.tfstate").write_text("{}")
    assert not module_differs(source, folder)
    assert not copy_module(source, folder)
    (source / "modules" / "net" / "main.tf").write_text("# changed\n")
    assert module_differs(source, folder)
    assert copy_module(source, folder)
    (folder / "start.sh").unlink()
    assert copy_module(source, folder), "what somebody removed is put back"
    (source / "start.sh").unlink()
    assert copy_module(source, folder)
    assert not (folder / "start.sh").exists()


def test_a_module_that_has_gone(source: Path, folder: Path) -> None:
    with pytest.raises(StepFailed, match="is not there"):
        copy_module(source / "nowhere", folder)
    assert not folder.exists()
