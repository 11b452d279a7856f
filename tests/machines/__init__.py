"""Machines for tests: systemd containers with real cloud-init and sshd, and a fleet of bare sshd.

They need root, Linux and Debian's packages `mmdebstrap systemd-container slirp4netns openssh-server`.
"""

from tests.machines.container import MODULE, ContainerMachine, reap
from tests.machines.container.image import ensure_image
from tests.machines.fleet import Fleet, FleetHost
from tests.machines.keys import KeyPair, make_key_pair

__all__ = [
    "MODULE",
    "ContainerMachine",
    "Fleet",
    "FleetHost",
    "KeyPair",
    "ensure_image",
    "make_key_pair",
    "reap",
]
