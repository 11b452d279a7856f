"""Where the playbooks, providers and inventory of deployer lie. Refuses to know what is in them."""

from pathlib import Path
from typing import Literal

Kind = Literal["playbooks", "tofu", "inventory"]


def bundled(kind: Kind) -> Path:
    """The directory of that kind: inside the package once installed, else at the checkout's top level."""
    package = Path(__file__).resolve().parent
    installed = package / "_bundled" / kind
    return installed if installed.is_dir() else package.parent / kind
