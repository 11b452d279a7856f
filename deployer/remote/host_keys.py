"""The known_hosts file of an environment: which keys are pinned for a host, and pinning and forgetting them."""

from __future__ import annotations

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
    """Appends the lines of `learned`, as ssh wrote them. Raises StepFailed (storage), OSError."""
    with _writing:
        _write(known_hosts, [*_lines(known_hosts), *_lines(learned)])


def forget_host_key(known_hosts: Path, address: str, port: int) -> None:
    """Unpins a host that was replaced on purpose. Raises StepFailed (storage), OSError."""
    name = known_as(address, port)
    if read_keys(known_hosts, name):
        _write(known_hosts, [line for line in _lines(known_hosts) if not _is_about(line, name)])


def _is_about(line: str, name: str) -> bool:
    names, *key = line.split() or [""]
    return len(key) >= 2 and name in names.split(",")  # neither comments nor @revoked have the name in front


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        problem, detail = "the host keys of the environment cannot be kept", f"{path}: {error.strerror}"
        raise StepFailed(problem, kind=FailureKind.STORAGE, detail=detail) from error


def _write(path: Path, lines: list[str]) -> None:
    new = path.with_name(f".{path.name}.new")
    new.touch(mode=0o600)
    new.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")
    new.replace(path)
