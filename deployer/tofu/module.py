"""The root module of an environment: a provider's files copied into its tofu folder, input variables beside them."""

import filecmp
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployer.config.loading import MODULE_SUFFIXES
from deployer.errors import FailureKind, Interrupted, StepFailed
from deployer.files import IF_MOVED, write_atomically, write_private

VARIABLES = "terraform.tfvars.json"
_MANIFEST = ".deployer-module.json"
_LOCK = ".terraform.lock.hcl"
_KEPT, _PUT_ASIDE = ".deployer-kept", ".deployer-kept.new"  # the latter is not whole, and does not count
# Other people's state and caches.
_NEVER_COPIED = shutil.ignore_patterns(
    ".terraform", ".git", "__pycache__", "*.tfstate", "*.tfstate.*", ".*_cache", ".deployer"
)
_BESIDE = ".deployer-beside"  # in the copy, what a module uses from beside it
# A source that is a relative path; a text or a comment, taken whole; the head of a block; a brace. "**/*.tf" begins no
# comment.
_CALLS = re.compile(
    r'(?<![^\s{])source[ \t]*=[ \t]*(?P<source>"\.{1,2}/[^"\n]*")'
    r'|"(?:[^"\\\n]|\\.)*"|#.*|//.*|(?<!\S)/\*[\s\S]*?\*/'
    r'|^[ \t]*(?P<block>\w+)(?:[ \t]+"?[\w-]+"?)*[ \t]*\{|(?P<brace>[{}])',
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
        raise _unfit(f"the module {source} is not there", "provider.path names that folder", IF_MOVED)
    if (source / VARIABLES).exists():
        way_out = "give your values as provider.options, or in a file *.auto.tfvars"
        raise _unfit(f"the module {source} has a {VARIABLES}", f"deployer writes that file; {way_out}")
    if not module_differs(source, folder):
        return False
    files, texts = _contents(source, folder)
    before, now = _manifest(folder), set(files)
    write_private(folder / _MANIFEST, sorted(before | now))  # where this stops half-way, nothing is left for good
    _remove(folder, before - now)
    for name, original in files.items():
        # The source's modes stay there: what others may read is not ours, and what is read-only cannot be copied over.
        for parent in reversed(Path(name).parents):
            (folder / parent).mkdir(mode=0o700, exist_ok=True)
        if name in texts:
            (folder / name).write_bytes(texts[name])
        else:
            shutil.copyfile(original, folder / name)
        (folder / name).chmod(0o700 if os.access(original, os.X_OK) else 0o600)
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


def lost_files(folder: Path) -> list[str]:
    """The configuration that `folder` no longer has of the module that was copied there: without it OpenTofu lets go of
    machines, and runs no destroy-time provisioner."""
    names = (_MANIFEST, *filter(lambda name: name.endswith(MODULE_SUFFIXES), _manifest(folder)))
    return sorted(name for name in names if not (folder / name).is_file())


def module_differs(source: Path, folder: Path) -> bool:
    """Whether the module in `source` is there, and another than the one `folder` holds. Raises OSError."""
    files, texts = _contents(source, folder)
    others = {name for name, original in files.items() if not _is_copied(original, folder / name, texts.get(name))}
    # `init` adds what this computer's providers must be to the lock file of a module that was locked on another one.
    if _LOCK in others and (folder / _LOCK).is_file() and _lines(source / _LOCK) <= _lines(folder / _LOCK):
        others.remove(_LOCK)
    return source.is_dir() and bool(others or set(files) != _manifest(folder))


def _is_copied(original: Path, copy: Path, text: bytes | None) -> bool:
    if not copy.is_file():
        return False
    return filecmp.cmp(original, copy, shallow=False) if text is None else copy.read_bytes() == text


def _contents(source: Path, folder: Path) -> tuple[dict[str, Path], dict[str, bytes]]:
    """What a copy of the module consists of: the files by their names there, and what those say there whose module
    calls lead out of it. What they lead to has the same places to each other as before.

    No override of OpenTofu's: where there is one, it drops arguments that the called module does not know."""
    source, folder = source.resolve(), folder.resolve()  # as OpenTofu's working directory is
    files = {name: source / name for name in _files(source, folder)}
    calls = [(name, *call) for name, file in files.items() for call in _calls(file)]
    leaving = [(name, place, used) for name, place, used in calls if not used.is_relative_to(source)]
    beside, wanted = dict[Path, set[str]](), [used for _, _, used in leaving]
    while wanted:
        used = wanted.pop()
        if not any(used.is_relative_to(other) for other in beside):
            beside[used] = _files(used, folder)
            wanted += [other for name in beside[used] for _, other in _calls(used / name)]
    root = Path(os.path.commonpath([source, *beside]))
    for used, names in beside.items():
        files |= {str(_BESIDE / used.relative_to(root) / name): used / name for name in names}
    texts: dict[str, str] = {}
    for name, place, used in reversed(leaving):  # so that what is before it in its file keeps its place
        text = texts.get(name) or _text(source / name)
        path = f"./{os.path.relpath(_BESIDE / used.relative_to(root), Path(name).parent)}"
        texts[name] = text[: place.start] + json.dumps(path, ensure_ascii=False) + text[place.stop :]
    return files, {name: text.encode(errors="surrogateescape") for name, text in texts.items()}


def _calls(file: Path) -> Iterator[tuple[slice, Path]]:
    """The module calls in a file whose source is a relative path to a folder: where it is written, and that folder."""
    if file.suffix not in (".tf", ".tofu"):
        return
    in_call, depth = False, 0
    for found in _CALLS.finditer(_text(file)):
        block, brace, source = found["block"], found["brace"], found["source"]
        if block == "module":
            in_call, depth = True, 0
        elif block or brace:
            depth += -1 if brace == "}" else 1
            in_call = in_call and depth >= 0
        elif in_call and not depth and source:  # deeper it is in a value
            used = Path(os.path.normpath(file.parent / source[1:-1]))
            if used.is_dir():
                yield slice(*found.span("source")), used


def _text(file: Path) -> str:
    return file.read_bytes().decode(errors="surrogateescape")


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
