"""A throw-away SSH key pair for tests."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KeyPair:
    private: Path
    public: Path

    @property
    def public_text(self) -> str:
        return self.public.read_text().strip()


def make_key_pair(directory: Path, name: str = "id_ed25519") -> KeyPair:
    """A new ed25519 pair in `directory`, without a passphrase."""
    private = directory / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "deployer-test", "-f", str(private)], check=True
    )
    return KeyPair(private, private.with_suffix(".pub"))
