"""The SSH connections that Ansible keeps open between the playbooks of one command. Knows no playbooks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployer.process import Interrupts, Request, capture

_CLOSE = 'for socket in *; do [ -S "$socket" ] && ssh -O exit -o ControlPath="$socket" closing; done; :'


@contextmanager
def kept_connections() -> Iterator[Path]:
    """A private directory for the connections' sockets; when the block is left they are closed. Raises OSError.

    In /tmp, because a Unix socket's path holds about 100 bytes, and homes and $TMPDIR may be deeper than that. Where we
    are killed, each connection ends by itself when it has not been used for a minute.
    """
    with tempfile.TemporaryDirectory(prefix="deployer-", dir="/tmp", ignore_cleanup_errors=True) as sockets:
        try:
            yield Path(sockets)
        finally:
            argv = ("/bin/sh", "-c", _CLOSE)
            request = Request(argv=argv, doing="close connections", cwd=Path(sockets), env=os.environ, timeout=10)
            capture(request, interrupts=Interrupts())  # the user's Ctrl+C is a reason to close, not to leave off
