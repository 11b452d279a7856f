"""The root module of an environment: a provider's files copied into its tofu folder, input variables beside them."""

import filecmp
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployer.errors import FailureKind, StepFailed
from deployer.files import write_atomically, write_private

VARIABLES = "terraform.tfvars.json"
_MANIFEST = ".deployer-module.json"
_LOCK = ".terraform.lock.hcl"
_KEPT, _PUT_ASIDE = ".deployer-kept", ".deployer-kept.new"  # the latter is not whole, and does not count
# Other people's state and caches.
_NEVER_COPIED = shutil.ignore_patterns(
    ".terraform", ".git", "__pycache__", "*.tfstate", "*.tfstate.*", ".*_cache", ".deployer"
)
# In a block of several lines, of one line, or in JSON. A comment is taken whole, and has no source; "**/*.tf" is none.
_LOCAL_SOURCE = re.compile(
    r'#.*|//.*|(?<!\S)/\*[\s\S]*?\*/|(?:^|[{,])[ \t]*"?source"?\s*[=:]\s*"(\.{1,2}/[^"]*)"', re.MULTILINE
)


def copy_module(source: Path, folder: Path) -> bool:
    """Makes `folder` hold the module in `source`; whether it held another one before. State, machines and whatever else
    lies there stay as they are.

    Files that an earlier copy brought and the module no longer has are removed. Where something exists, `module_kept`
    is around it: half a module would destroy without provisioners. Raises OSError, and StepFailed where the module is
    not there, uses a folder outside it, or brings a terraform.tfvars.json, which ours would replace.
    """
    if not source.is_dir():
        moved = "deployer up FILE    # its file, where it is now, if the project has moved"
        raise _unfit(f"the module {source} is not there", "provider.path names that folder", moved)
    if (source / VARIABLES).exists():
        way_out = "give your values as provider.options, or in a file *.auto.tfvars"
        raise _unfit(f"the module {source} has a {VARIABLES}", f"deployer writes that file; {way_out}")
    if not module_differs(source, folder):
        return False
    before, now = _manifest(folder), _files(source, folder)
    _see_all_is_inside(source, now)
    write_private(folder / _MANIFEST, sorted(before | now))  # where this stops half-way, nothing is left for good
    _remove(folder, before - now)
    for name in now:
        # The source's modes stay there: what others may read is not ours, and what is read-only cannot be copied over.
        for parent in reversed(Path(name).parents):
            (folder / parent).mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(source / name, folder / name)
        (folder / name).chmod(0o700 if os.access(source / name, os.X_OK) else 0o600)
    write_private(folder / _MANIFEST, sorted(now))
    return True


@contextmanager
def module_kept(folder: Path, again: Callable[[], None]) -> Iterator[None]:
    """Whatever is copied to `folder` while the block runs, in the end it holds the module and the variables that it
    held before: those that its machines were made with, and go away with; unless `adopt` was called. Where we are
    killed meanwhile, `put_back` does it later. Raises OSError."""
    _put_aside(folder)
    try:
        yield
    finally:
        put_back(folder, again, another=False)


def put_back(folder: Path, again: Callable[[], None], *, another: bool = True) -> None:
    """Puts back what a question has put aside, if anything. `again` is called where `another` module was in its place,
    as it may have been where that question was killed: what OpenTofu has noted is of that one. Raises OSError."""
    kept = folder / _KEPT
    if not kept.is_dir():
        return
    stale = _manifest(folder) - _manifest(kept) if (kept / _MANIFEST).exists() else set[str]()
    another = another or bool(stale)
    _remove(folder, stale)
    for file in sorted(filter(Path.is_file, kept.rglob("*")), key=lambda file: file.name == _MANIFEST):  # it comes last
        target = folder / file.relative_to(kept)
        if not target.is_file() or not filecmp.cmp(file, target, shallow=False):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(target, file.read_bytes())
            target.chmod(file.stat().st_mode)
            another = another or file.name != VARIABLES
    if another:
        with suppress(StepFailed):  # it is as it was before, which may not have been valid
            again()
    adopt(folder)


def adopt(folder: Path) -> None:
    """What `folder` holds now stays: what was put aside is dropped. Raises OSError."""
    with suppress(FileNotFoundError):  # nothing was there to be kept
        (folder / _KEPT).replace(folder / _PUT_ASIDE)  # at once, or who is killed now would put a part of it back
        shutil.rmtree(folder / _PUT_ASIDE)


def _put_aside(folder: Path) -> None:
    new = folder / _PUT_ASIDE
    shutil.rmtree(new, ignore_errors=True)
    for name in filter(lambda name: (folder / name).is_file(), (*_manifest(folder), _MANIFEST, VARIABLES)):
        (new / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(new / name, (folder / name).read_bytes())  # it lasts, or a power cut would leave empty files
        (new / name).chmod((folder / name).stat().st_mode)
    if new.is_dir():
        new.replace(folder / _KEPT)


def _remove(folder: Path, names: set[str]) -> None:
    """Folders that are empty then go, too: a file may come in their place, as a folder may in a file's."""
    for name in names:
        if (folder / name).is_file():  # a folder may have its name by now
            (folder / name).unlink()
        for parent in (folder / name).parents[: len(Path(name).parents) - 1]:
            with suppress(OSError):
                parent.rmdir()


def module_differs(source: Path, folder: Path) -> bool:
    """Whether the module in `source` is there, and another than the one `folder` holds. Raises OSError."""
    files = _files(source, folder)
    same, others, _ = filecmp.cmpfiles(source, folder, files, shallow=False)
    # `init` adds what this computer's providers must be to the lock file of a module that was locked on another one.
    grown = {_LOCK} if _LOCK in others and _lines(source / _LOCK) <= _lines(folder / _LOCK) else set[str]()
    return source.is_dir() and not files == _manifest(folder) == grown.union(same)


def _files(source: Path, folder: Path) -> set[str]:
    """What is copied: everything but what is never copied, links that lead nowhere or back, and, where it lies inside
    the module, our own home."""
    found: set[str] = set()
    for directory, folders, files in os.walk(source, followlinks=True):
        here, left_out = Path(directory), _NEVER_COPIED(directory, [*folders, *files])
        # A link may lead back to where we come from: without an end, or, with two of them, to more than disks hold.
        behind = {folder, *folder.parents} | set(map(os.path.realpath, (here, *here.parents)))
        folders[:] = [n for n in folders if n not in left_out and not {here / n, os.path.realpath(here / n)} & behind]
        found |= {os.path.relpath(here / n, source) for n in files if n not in left_out and (here / n).is_file()}
    return found


def _see_all_is_inside(source: Path, names: set[str]) -> None:
    """What a relative path leads to beside the module is not there beside our copy of it."""
    for name in sorted(name for name in names if name.endswith((".tf", ".tofu", ".tf.json", ".tofu.json"))):
        for used in _LOCAL_SOURCE.findall((source / name).read_text(encoding="utf-8", errors="replace")):
            if os.path.normpath(Path(name).parent / used).startswith(".."):
                way_out = "deployer works on a copy of the module: move that folder into it, or give its absolute path"
                raise _unfit(f"{source / name} uses {used}, which lies outside the module", way_out)


def _lines(file: Path) -> set[bytes]:
    return set(file.read_bytes().splitlines())


def _manifest(folder: Path) -> set[str]:
    """What an earlier copy brought; where that cannot be read, nothing is known to be stale."""
    try:
        return set(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return set()


def _unfit(problem: str, cause: str, help_: str = "") -> StepFailed:
    return StepFailed(problem, kind=FailureKind.INPUT, detail=cause, help=help_)
