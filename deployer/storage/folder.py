"""Where things of an environment lie on disk, and where the home is. Paths only: makes folders, reads no file."""

import errno
import os
import pwd
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deployer.errors import InvalidInput, StorageFailed
from deployer.events import one_line
from deployer.files import unkept, write_atomically

HOME_NAME = ".deployer"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class EnvironmentFolder:
    """The files of one environment (docs/architecture.md lists them)."""

    def __init__(self, root: Path) -> None:
        self.root: Final = root
        self.name: Final = root.name
        self.state: Final = root / "environment.json"
        self.lock: Final = root / "environment.lock"
        self.tofu: Final = root / "tofu"
        self.ansible: Final = root / "ansible"
        self.private_key: Final = root / "ssh" / "id_ed25519"
        self.known_hosts: Final = root / "ssh" / "known_hosts"
        self.events: Final = root / "events.jsonl"
        self.logs: Final = root / "logs"
        self.recovery: Final = root / "RECOVERY.md"
        self.enter_tofu: Final = f"cd {shlex.quote(str(self.tofu))}"  # what a person types before `tofu`


def find_home(cwd: Path, environ: Mapping[str, str], named: Path | str | None = None) -> Path:
    """The one that is `named`, else DEPLOYER_HOME, else the nearest `.deployer` from `cwd` upwards, else `.deployer` in
    `cwd` (perhaps not there).

    Raises InvalidInput where its path cannot be kept, and where one was found that is another user's: who owns a home
    decides what is run in the name of those who work with it, and one in /tmp may be anybody's.
    """
    named, owners = named or environ.get("DEPLOYER_HOME"), set[int]()
    home = Path(os.path.abspath(cwd / os.path.expanduser(named or HOME_NAME)))
    if not named and (found := next((f / HOME_NAME for f in (cwd, *cwd.parents) if (f / HOME_NAME).is_dir()), None)):
        home, owners = found, {found.lstat().st_uid, found.stat().st_uid}  # of a link, and of where it leads
    if problem := unkept(home):
        elsewhere = "deployer --home ~/.deployer list    # or wherever else they shall be kept"
        raise InvalidInput(f"{one_line(str(home))} cannot be a home", detail=problem, help=elsewhere)
    for uid in owners - {os.geteuid()}:
        owner = next((user.pw_name for user in pwd.getpwall() if user.pw_uid == uid), f"uid {uid}")
        cause = "its owner decides what is run from it, so it is used only where it is named"
        way_out = f"deployer --home {shlex.quote(str(home))} list    # or make one of your own: deployer init"
        raise InvalidInput(f"the home {home} belongs to {owner}, not to you", detail=cause, help=way_out)
    return home


def private_directory(path: Path) -> Path:
    """`path` as a directory that only we may enter, made with its parents where it is missing. Git is kept out of a new
    home: keys and variables are in it. Raises StorageFailed."""
    for folder in reversed([path, *path.parents]):
        try:
            begins_home = folder.name == HOME_NAME and not folder.exists()
            folder.mkdir(mode=0o700, exist_ok=True)
            if begins_home:
                write_atomically(folder / ".gitignore", b"*\n")
        except OSError as error:
            raise storage_failed("cannot make", folder, error) from error
    return path


def storage_failed(doing: str, path: Path, error: OSError) -> StorageFailed:
    """An operating system's refusal, as our error: what could not be done to which file, and why."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    look = f"{'df -h' if error.errno in _NO_ROOM else 'ls -ld'} {shlex.quote(str(path.parent))}"
    return StorageFailed(f"{doing} {path}", detail=reason, remains="Nothing was changed there.", help=look)
