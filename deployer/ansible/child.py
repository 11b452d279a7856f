"""The child that holds ansible-runner: `python -m deployer.ansible.child REQUEST.json`, a JSON record a line on stdout.

Refuses to know what comes of it. When nobody reads any more it goes on in silence: a playbook broken off half-way helps
no one, and the lock's record names us until it ends.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from deployer.ansible.results import Record, Veil, records_of
from deployer.ansible.tree import end_tree
from deployer.process import Deadline, ProcessIdentity, identity_of

# Becomes ansible-playbook, with the same pid: tells it at once (the first event comes a second later), and takes away
# the terminal's input, which ansible-runner fakes and where vars_prompt and pause would wait for ever.
_ANNOUNCE = "process:"
_LAUNCH = f'echo "{_ANNOUNCE}$$"; exec "$@" </dev/null'


class Playbook:
    """One ansible-playbook under ansible-runner: its events go to `out`, a request to stop ends it and all its own."""

    def __init__(self, request: Mapping[str, Any], out: int) -> None:
        self._request, self._out = request, out
        self._deadline = Deadline(float(request["timeout"]))
        variables = json.loads(Path(request["variables"]).read_text(encoding="utf-8"))
        self._veil = Veil(variables)
        self._process: ProcessIdentity | None = None
        self._stop = False

    def stop(self, signum: int, frame: FrameType | None) -> None:
        self._stop = True

    def run(self) -> None:
        import ansible_runner  # heavy, and only once the signals are ours

        rc, problem = None, ""
        launch = ["-c", _LAUNCH, "launch", *self._request["argv"]]
        try:
            rc = ansible_runner.run(
                private_data_dir=self._request["private_data_dir"],
                project_dir=self._request["project_dir"],
                ident="run",
                binary="/bin/sh",
                cmdline=shlex.join(launch),
                fact_cache=self._request["fact_cache"],
                suppress_env_files=True,
                quiet=True,
                event_handler=self._event,
                cancel_callback=self._cancelled,
            ).rc
        except Exception as error:  # noqa: BLE001 - pexpect may time out after success: the parent judges by the recap
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            self._end()
        self._say({"type": "end", "rc": rc, "problem": problem})

    def _event(self, event: Mapping[str, Any]) -> bool:
        """False: write no file for it."""
        text = str(event.get("stdout") or "")
        if self._process is None and text.startswith(_ANNOUNCE):
            pid = int(text.removeprefix(_ANNOUNCE))
            self._process = identity_of(pid)
            self._say({"type": "process", "pid": pid})
            return False
        for record in records_of(event):
            self._say(self._veil.over_record(record))
        return False

    def _cancelled(self) -> bool:
        if not self._stop and not self._deadline.expired:
            return False
        self._end()
        return True

    def _end(self) -> None:
        if self._process is not None:
            end_tree(self._process)

    def _say(self, record: Record) -> None:
        if self._out < 0:
            return
        data = json.dumps(record).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError:
            self._out = -1  # our parent has been killed


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no record
    playbook = Playbook(request, out)
    signal.signal(signal.SIGINT, playbook.stop)
    signal.signal(signal.SIGTERM, playbook.stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    playbook.run()


if __name__ == "__main__":
    main()
