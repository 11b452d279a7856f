"""The root module of an environment: a provider's files copied into its tofu folder, input variables beside them."""

import filecmp
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.files import write_atomically, write_private

VARIABLES = "terraform.tfvars.json"
_MANIFEST = ".deployer-module.json"
_LOCK = ".terraform.lock.hcl"
_KEPT, _PUT_ASIDE = ".deployer-kept", ".deployer-kept.new"  # the latter is not whole, and does not count
# Other people's state and caches.
_NEVER_COPIED = shutil.ignore_patterns(
    ".terraform", ".git", "__pycache__", "*.tfstate", "*.tfstate.*", ".*_cache", ".deployer"
)
# What a module uses from beside it lies here in the copy, and each folder that calls it says so, in an override that
# comes after those of the user's.
_BESIDE, _OVERRIDE = ".deployer-beside", "zz_deployer_override.tf.json"
# A text or a comment, taken whole; the head of a block; a brace; a source. "**/*.tf" begins no comment.
_CALLS = re.compile(
    r'(?<![^\s{])source[ \t]*=[ \t]*"([^"\n]*)"|"(?:[^"\\\n]|\\.)*"|#.*|//.*|(?<!\S)/\*[\s\S]*?\*/'
    r'|^[ \t]*(\w+)(?:[ \t]+"?([\w-]+)"?)*[ \t]*\{|([{}])',
    re.MULTILINE,
)


def copy_module(source: Path, folder: Path) -> bool:
    """Makes `folder` hold the module in `source`, with what that uses from beside it; whether it held another before.
    State, machines and whatever else lies there stay as they are.

    Files that an earlier copy brought and the module no longer has are removed. Where something exists, `module_kept`
    is around it: half a module would destroy without provisioners. Raises OSError, and StepFailed where the module is
    not there, or brings a terraform.tfvars.json, which ours would replace.
    """
    if not source.is_dir():
        moved = "deployer up FILE    # its file, where it is now, if the project has moved"
        raise _unfit(f"the module {source} is not there", "provider.path names that folder", moved)
    if (source / VARIABLES).exists():
        way_out = "give your values as provider.options, or in a file *.auto.tfvars"
        raise _unfit(f"the module {source} has a {VARIABLES}", f"deployer writes that file; {way_out}")
    if not module_differs(source, folder):
        return False
    files, overrides = _contents(source, folder)
    before, now = _manifest(folder), {*files, *overrides}
    write_private(folder / _MANIFEST, sorted(before | now))  # where this stops half-way, nothing is left for good
    _remove(folder, before - now)
    for name, original in files.items():
        # The source's modes stay there: what others may read is not ours, and what is read-only cannot be copied over.
        for parent in reversed(Path(name).parents):
            (folder / parent).mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(original, folder / name)
        (folder / name).chmod(0o700 if os.access(original, os.X_OK) else 0o600)
    for name, override in overrides.items():
        write_private(folder / name, override)
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
        with suppress(Interrupted):  # what was being done says so, and a later `put_back` does the rest
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
    files, overrides = _contents(source, folder)
    others = {name for name, original in files.items() if not _is_copied(original, folder / name)}
    # `init` adds what this computer's providers must be to the lock file of a module that was locked on another one.
    if _LOCK in others and (folder / _LOCK).is_file() and _lines(source / _LOCK) <= _lines(folder / _LOCK):
        others.remove(_LOCK)
    return source.is_dir() and bool(others or {*files, *overrides} != _manifest(folder))


def _is_copied(original: Path, copy: Path) -> bool:
    return copy.is_file() and filecmp.cmp(original, copy, shallow=False)


def _contents(source: Path, folder: Path) -> tuple[dict[str, Path], dict[str, object]]:
    """What a copy of the module consists of: the files by their names there, and what overrides the sources of those
    module calls that lead out of it. What they lead to has the same places to each other as before."""
    source, folder = source.resolve(), folder.resolve()  # as OpenTofu's working directory is
    inside = sorted(_files(source, folder), key=lambda name: (_overrides(Path(name)), name))  # the last one counts
    calls = {(Path(name).parent, call): used for name in inside for call, used in _calls(source / name)}
    leaving = {where: used for where, used in calls.items() if not used.is_relative_to(source)}
    beside, wanted = set[Path](), [*leaving.values()]
    while wanted:
        used = wanted.pop()
        if not any(used.is_relative_to(other) for other in beside):
            beside.add(used)
            wanted += [other for name in _files(used, folder) for _, other in _calls(used / name)]
    root = Path(os.path.commonpath([source, *beside]))
    files = {name: source / name for name in inside}
    for used in beside:
        files |= {str(_BESIDE / used.relative_to(root) / name): used / name for name in _files(used, folder)}
    overrides: dict[str, Any] = {}
    for (here, call), used in leaving.items():
        override = overrides.setdefault(str(here / _OVERRIDE), {"module": {}})
        override["module"][call] = {"source": f"./{os.path.relpath(_BESIDE / used.relative_to(root), here)}"}
    return files, overrides


def _overrides(file: Path) -> bool:
    """Whether OpenTofu merges it into the others."""
    return f"_{file.stem}".endswith("_override")


def _calls(file: Path) -> Iterator[tuple[str, Path]]:
    """The module calls in a file, and where each leads: to itself, unless its source is a relative path to a folder."""
    if file.suffix not in (".tf", ".tofu"):
        return
    call, depth = "", 0
    for source, block, label, brace in _CALLS.findall(file.read_text(encoding="utf-8", errors="replace")):
        if block == "module":
            call, depth = label, 0
        elif block or brace:
            depth += -1 if brace == "}" else 1
            call = call if depth >= 0 else ""
        elif source and call and not depth:  # deeper it is in a value
            used = Path(os.path.normpath(file.parent / source))
            yield call, used if source.startswith(("./", "../")) and used.is_dir() else file.parent


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
