"""Environments of machines, from a short YAML file to configured hosts and back to nothing."""

__version__ = "0.1.0"

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployer.app.deployer import Deployer

__all__ = ["Deployer", "__version__"]


def __getattr__(name: str) -> object:
    # On first use only: the command line imports this package at every start, and reads a state without all of it.
    if name == "Deployer":
        from deployer.app.deployer import Deployer

        return Deployer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
