"""The known_hosts file of an environment: which keys are pinned for a host, and pinning and forgetting them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import tempfile
import threading
from pathlib import Path

from deployer.errors import FailureKind, StepFailed

_writing = threading.Lock()  # several hosts of one environment are pinned side by side, in one file


def known_as(address: str, port: int) -> str:
    """The name ssh gives a host in known_hosts."""
    return address.lower() if port == 22 else f"[{address.lower()}]:{port}"


def read_keys(known_hosts: Path, name: str) -> frozenset[str]:
    """The keys ("type base64") in the file for that name; none where there is no file. Raises StepFailed (storage)."""
    return frozenset(" ".join(line.split()[1:3]) for line in _lines(known_hosts) if _is_about(line, name))


def pin(known_hosts: Path, learned: Path) -> None:
    """Appends the lines of `learned`, as ssh wrote them. Raises StepFailed (storage)."""
    with _writing:
        before = _lines(known_hosts)
        new = [line for line in _lines(learned) if line not in before]
        _replace(known_hosts, [*before, *new])


def forget_host_key(known_hosts: Path, address: str, port: int) -> None:
    """Unpins a host that was replaced on purpose. Raises StepFailed (storage)."""
    with _writing:
        before = _lines(known_hosts)
        kept = [line for line in before if not _is_about(line, known_as(address, port))]
        if kept != before:
            _replace(known_hosts, kept)


def fingerprint(key: str) -> str:
    """A key's fingerprint as ssh shows it."""
    kind, _, blob = key.partition(" ")
    try:
        digest = hashlib.sha256(base64.b64decode(blob, validate=True)).digest()
    except binascii.Error:
        return f"{kind} (unreadable)"
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _is_about(line: str, name: str) -> bool:
    names, *rest = line.split() or [""]
    if len(rest) < 2 or names.startswith(("#", "@")):
        return False
    return any(_hash_matches(n, name) if n.startswith("|1|") else n == name for n in names.split(","))


def _hash_matches(hashed: str, name: str) -> bool:
    # We never write hashed names, but a user may run `ssh-keygen -H`; the pin must not be lost by that.
    try:
        salt, digest = (base64.b64decode(part) for part in hashed[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _storage(path, error) from error


def _replace(path: Path, lines: list[str]) -> None:
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(f"{line}\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _storage(path, error) from error


def _storage(path: Path, error: OSError) -> StepFailed:
    return StepFailed(
        "the host keys of the environment cannot be kept",
        kind=FailureKind.STORAGE,
        detail=f"{path}: {error.strerror}",
    )
