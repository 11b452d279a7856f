"""The Debian 12 root tree that every test container starts from: built once, then only read.

Standard library only: the OpenTofu module beside it runs it as a program, from wherever it was copied to.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

SUITE = "bookworm"
# What a machine needs to be reached and configured, and no more: the playbooks shall find real work to do.
PACKAGES = "systemd-sysv,udev,dbus,cloud-init,openssh-server,python3,python3-apt,sudo,iproute2,netbase"
# Documentation is half of the files, and nobody reads it in a container.
DPKG_OPTIONS = ("path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*")


def default_cache() -> Path:
    if chosen := os.environ.get("DEPLOYER_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "deployer"


def ensure_image(cache: Path | None = None) -> Path:
    """The root tree's path; built first (about half a minute, one builder at a time) where it is missing.

    Raises RuntimeError with the end of mmdebstrap's output where the build fails.
    """
    recipe = hashlib.sha256(repr((SUITE, PACKAGES, DPKG_OPTIONS)).encode()).hexdigest()[:12]
    directory = (cache or default_cache()) / "test-images"
    tree = directory / f"debian-12-{recipe}"
    if tree.is_dir():
        return tree
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.is_dir():
            for abandoned in directory.glob("*.building"):
                shutil.rmtree(abandoned)
            _build(tree)
    return tree


def _build(tree: Path) -> None:
    unfinished = tree.with_name(f"{tree.name}.building")
    options = [f"--dpkgopt={option}" for option in DPKG_OPTIONS]
    done = subprocess.run(
        ["mmdebstrap", "--variant=minbase", f"--include={PACKAGES}", *options, SUITE, str(unfinished)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise RuntimeError("mmdebstrap failed: " + "\n".join(done.stdout.splitlines()[-8:]))
    # Each machine gets its own; what is in the tree came from the builder.
    (unfinished / "etc/machine-id").write_text("")
    (unfinished / "etc/resolv.conf").unlink(missing_ok=True)
    unfinished.rename(tree)


if __name__ == "__main__":
    try:
        print(ensure_image())
    except (RuntimeError, OSError) as error:
        sys.exit(str(error))
