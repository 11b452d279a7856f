"""The SSH connections that Ansible keeps open between the playbooks of one command. Knows no playbooks.

Their sockets lie in a private directory with a short path, because a Unix socket's path holds about 100 bytes and homes
are deeper than that; a link in the workspace leads there, so that whoever finds the workspace can close them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from deployer.process import Interrupts, Request, capture

_CLOSE = 'for socket in *; do [ -S "$socket" ] && ssh -O exit -o ControlPath="$socket" closing; done; :'


def connections(workspace: Path) -> Path:
    """The directory for the sockets of this workspace; made on first use. Raises OSError."""
    link = workspace / "connections"
    if not link.is_dir():
        link.unlink(missing_ok=True)
        link.symlink_to(tempfile.mkdtemp(prefix="deployer-", dir="/tmp"))  # $TMPDIR may be deep
    return link.readlink()


def close_connections(workspace: Path) -> None:
    """Ends the connections kept for this workspace and removes their directory. Safe to call twice, or interrupted."""
    link = workspace / "connections"
    if link.is_dir():
        argv = ("/bin/sh", "-c", _CLOSE)
        request = Request(argv=argv, doing="close connections", cwd=link.readlink(), env=os.environ, timeout=10)
        capture(request, interrupts=Interrupts())  # the user's Ctrl+C is a reason to close, not to leave off closing
        shutil.rmtree(link.readlink(), ignore_errors=True)
    link.unlink(missing_ok=True)
