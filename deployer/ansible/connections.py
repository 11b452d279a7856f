"""The SSH connections that Ansible keeps open between the playbooks of one command. Knows no playbooks.

Their sockets lie in a private directory with a short path, because a Unix socket's path holds about 100 bytes and homes
are deeper than that; a link in the workspace leads there, so that whoever finds the workspace can close them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from deployer.process import Interrupts, Request, run

# 104 bytes on macOS, less our own name (18), Ansible's for the host (11) and what ssh appends while it connects (17).
_LONGEST_PARENT = 55
_LINK = "connections"
_CLOSE = 'for socket in *; do [ -S "$socket" ] && ssh -O exit -o ControlPath="$socket" closing; done; :'


def connections(workspace: Path) -> Path:
    """The directory for the sockets of this workspace; made on first use. Raises OSError."""
    link = workspace / _LINK
    if link.is_dir():
        return link.readlink()
    link.unlink(missing_ok=True)
    temporary = tempfile.gettempdir()
    if len(os.fsencode(temporary)) > _LONGEST_PARENT:
        temporary = "/tmp"  # noqa: S108 - mkdtemp makes it ours alone
    directory = tempfile.mkdtemp(prefix="deployer-", dir=temporary)
    link.symlink_to(directory)
    return Path(directory)


def close_connections(workspace: Path) -> None:
    """Ends the connections kept for this workspace and removes their directory. Safe to call twice, or interrupted."""
    link = workspace / _LINK
    if link.is_dir() and link.is_symlink():
        directory = link.readlink()
        request = Request(
            argv=("/bin/sh", "-c", _CLOSE), doing="close connections", cwd=directory, env=dict(os.environ), timeout=10
        )
        # With interrupts of its own: the user's Ctrl+C is a reason to close, not to leave off closing.
        run(request, interrupts=Interrupts(), on_line=lambda stream, line: None)
        shutil.rmtree(directory, ignore_errors=True)
    link.unlink(missing_ok=True)
