"""The base image that machines are overlays of: made once, cached, shared. Knows nothing of any machine.

CACHE/images/debian-12-ARCH-official/           disk.qcow2
CACHE/images/debian-12-ARCH-built-RECIPE/       disk.qcow2 vmlinuz initrd
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import build
import host
from host import ProviderError, Say

MIRROR = "https://cloud.debian.org/images/cloud/bookworm/latest"
CONNECT_SECONDS = 6
STALL_SECONDS = 30
ATTEMPTS = 5
# What a reply that is none, or is cut short, may raise.
BROKEN_OFF = (OSError, ValueError, http.client.HTTPException)


@dataclass(frozen=True)
class Image:
    """A base image; with a kernel it is booted directly, without one by its own boot loader."""

    disk: Path
    kernel: Optional[Path] = None
    initrd: Optional[Path] = None


def base_image(chosen: str, say: Say) -> Image:
    """The image to make machines of: the user's own, the cached one, or the one made now. ProviderError if none."""
    if chosen:
        disk = host.expanded(chosen, "give the provider's option `image` a whole path")
        if not disk.is_file():
            # The whole path: a relative one is looked for in OpenTofu's folder, which need not be the user's.
            looked_at = os.path.abspath(disk)
            raise ProviderError(f"the image {looked_at} is not a file", "correct the provider's option `image`")
        return Image(disk.resolve())
    folder = host.cache_directory() / "images"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = cached_image()
    if found:
        return found
    with _locked(folder / "lock", say):
        # Another command may have made it while this one waited.
        found = cached_image()
        if found:
            return found
        sums = official_sums()
        if sums is not None:
            _download(folder, sums, say)
        else:
            _build(folder, say)
    made = cached_image()
    if made is None:
        raise ProviderError("the base image was removed while it was being made", "run the command again")
    return made


def cached_image() -> Image | None:
    """The image that is ready in the cache, if one is. A folder there is complete: it gets its name when it is."""
    folder = host.cache_directory() / "images"
    official = folder / _official() / "disk.qcow2"
    if official.is_file():
        return Image(official)
    built = folder / _built()
    if built.is_dir():
        return Image(built / "disk.qcow2", built / "vmlinuz", built / "initrd")
    return None


def official_sums() -> str | None:
    """The published checksums of the official images, or None where they cannot be had within a few seconds."""
    answer: list[str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{_mirror()}/SHA512SUMS", timeout=CONNECT_SECONDS) as reply:
                answer.append(reply.read(1_000_000).decode("ascii"))
        except BROKEN_OFF:
            pass

    # A thread, because the look-up of a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(CONNECT_SECONDS)
    return answer[0] if answer else None


def _mirror() -> str:
    return os.environ.get("DEPLOYER_IMAGE_MIRROR", "").rstrip("/") or MIRROR


def _official() -> str:
    return f"debian-12-{host.architecture().debian}-official"


def _built() -> str:
    """The recipe is in the name, so another recipe makes another image and the disks made of this one stay whole."""
    return f"debian-12-{host.architecture().debian}-built-{build.recipe()}"


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    with open(path, "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that is making the base image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(folder: Path, sums: str, say: Say) -> None:
    name = f"debian-12-genericcloud-{host.architecture().debian}.qcow2"
    wanted = next((line.split()[0] for line in sums.splitlines() if line.split()[1:] == [name]), "")
    if len(wanted) != 128:
        raise ProviderError(
            f"{_mirror()}/SHA512SUMS does not list {name}", "try again later, or set the option `image`"
        )
    host.need_space(folder, 1.0, "downloading the base image")
    # Named by its checksum: a download goes on only where it is still the same image.
    part = folder / f"{name}.{wanted[:16]}.part"
    for stale in set(folder.glob(f"{name}.*.part")) - {part}:
        stale.unlink()
    url = f"{_mirror()}/{name}"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(url, part, say)
            break
        except BROKEN_OFF as error:
            if attempt == ATTEMPTS:
                fix = "run the command again: it goes on where it stopped"
                raise ProviderError(f"the download of {url} failed: {error}", fix) from error
            say(f"the download stopped ({error}); trying again")
            time.sleep(attempt)
    say("checking the image's SHA-512")
    digest = hashlib.sha512()
    with open(part, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != wanted:
        part.unlink()
        raise ProviderError(f"{url} does not have its published SHA-512; it was deleted", "run the command again")
    work = _work_folder(folder)
    os.replace(part, work / "disk.qcow2")
    os.rename(work, folder / _official())


def _fetch(url: str, part: Path, say: Say) -> None:
    """Bring the rest of `url` into `part`. BROKEN_OFF when it breaks off."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        reply = urllib.request.urlopen(request, timeout=STALL_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:
            return  # Nothing is missing; the checksum says whether what we have is right.
        raise
    with reply, open(part, "ab" if reply.status == 206 else "wb") as file:
        total = file.tell() + int(reply.headers.get("Content-Length", 0))
        told = 0.0
        while block := reply.read(1 << 18):
            file.write(block)
            if time.monotonic() - told > 5:
                told = time.monotonic()
                say(f"downloading the base image: {file.tell() >> 20} of {total >> 20} MiB")
        if file.tell() < total:
            raise OSError("the connection was closed")


def need_tools_to_build() -> None:
    """ProviderError with the ways out where no image can be built."""
    if missing := build.missing():
        packages = " ".join(missing.values())
        fix = f"connect to the internet, or: sudo apt install {packages}, or set the provider's option `image`"
        raise ProviderError(
            f"{_mirror()} cannot be reached, and to build an image {' and '.join(missing)} is missing", fix
        )


def _build(folder: Path, say: Say) -> None:
    need_tools_to_build()
    host.need_space(folder, 1.5, "building the base image")
    say(f"building the base image from Debian's packages, once (a minute or two): {_mirror()} cannot be reached")
    work = _work_folder(folder)
    build.build(work, folder / "build.log", say)
    os.rename(work, folder / _built())


def _work_folder(folder: Path) -> Path:
    """An empty folder to make an image in; the lock says that nobody else uses the last one."""
    work = folder / "making"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(mode=0o700)
    return work
