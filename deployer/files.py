"""How our files are written: a reader sees the old one or the new one, whole, whatever happens; and how paths are told.
Knows no content."""

import contextlib
import json
import os
import re
import shlex
from pathlib import Path

# What to type where a file of the user's is not where it was.
IF_MOVED = "deployer up FILE    # its file, where it is now, if the project has moved"


def unkept(path: Path) -> str:
    """Why a path could not be kept in a state, nor told in a line; empty where it can."""
    strange = re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", str(path))
    return "its path has a control character, or one that is not UTF-8" if strange else ""


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces `path` (mode 0600): temporary file in the same directory, flush, fsync, replace, fsync of the directory.

    Two writers at once are the caller's to exclude; a leftover of a killed writer is written over. Raises OSError; the
    old file then stands, unless only the last fsync failed.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # a leftover may have another mode
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    # The rename shall last through a power cut: fsync(2) says that the directory entry needs one of its own.
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def word(path: Path | str) -> str:
    """`path` as a word of a command line: never taken for an option, nor for an environment's name."""
    text = str(path)
    return shlex.quote(text if {".", "/"} & set(text) and not text.startswith("-") else f"./{text}")


def write_private(path: Path, data: object) -> None:
    """Writes `data` as JSON, which may hold secrets; its folder is made where it is missing. Raises OSError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_atomically(path, json.dumps(data, indent=2).encode())
