"""The key pair machines are reached with: one made for each environment, or the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from deployer.config.loading import located
from deployer.config.model import Spec
from deployer.errors import FailureKind, StepFailed
from deployer.process import Interrupts, Request, capture
from deployer.storage.folder import EnvironmentFolder, private_directory


def private_key(spec: Spec, directory: Path, folder: EnvironmentFolder) -> Path:
    """Where the private key is."""
    if spec.ssh.private_key is None:
        return folder.private_key
    return located(directory, spec.ssh.private_key)


def public_key(key: Path, folder: EnvironmentFolder, *, environ: Mapping[str, str], interrupts: Interrupts) -> str:
    """The public key of `key`; the environment's own pair is made where missing. Raises StepFailed, ToolMissing."""
    own = key == folder.private_key
    if own and not key.exists():
        private_directory(key.parent)
        comment = f"deployer-{folder.name}"
        _keygen("-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(key), environ=environ, interrupts=interrupts)
    if own and folder.public_key.exists():
        return folder.public_key.read_text(encoding="utf-8").strip()
    if not os.access(key, os.R_OK):
        raise StepFailed(f"the key {key} cannot be read", kind=FailureKind.INPUT, detail="ssh.private_key names it")
    # -P '': a key with a passphrase is refused here rather than asked for where nobody can answer.
    return _keygen("-y", "-P", "", "-f", str(key), environ=environ, interrupts=interrupts).strip()


def _keygen(*arguments: str, environ: Mapping[str, str], interrupts: Interrupts) -> str:
    request = Request(argv=("ssh-keygen", *arguments), doing="ssh-keygen", cwd=Path("/"), env=environ, timeout=30)
    outcome, text = capture(request, interrupts=interrupts)
    if outcome.returncode != 0:
        raise StepFailed(
            f"the key {arguments[-1]} cannot be used",
            kind=FailureKind.INPUT,
            detail=" ".join(line for line in outcome.tail[-1:]),  # before it there may be a banner
        )
    return text
