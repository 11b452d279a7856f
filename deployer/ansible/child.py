"""The child that holds ansible-runner: `python -m deployer.ansible.child REQUEST.json`, a JSON record a line on stdout.

Refuses to know what comes of it. It goes on when its parent has been killed: a playbook broken off half-way helps no
one, and the lock's record names us until it ends.
"""

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployer.ansible.results import records_of
from deployer.process import Deadline, Interrupts, end_tree, own_identity


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    deadline = Deadline(request["timeout"])
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")  # by the line
    os.dup2(2, 1)  # whatever a library prints is no record

    def tell(event: Mapping[str, Any]) -> bool:
        for record in records_of(event):
            print(json.dumps(record), file=out)
        return False  # no file for it

    def cancelled() -> bool:
        if not interrupts.count and not deadline.expired:
            return False
        end_tree(own_identity())  # ansible-runner would miss the workers: they have sessions of their own
        return True

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts().listening() as interrupts:
        import ansible_runner  # heavy, and only once the signals are ours

        try:
            # pexpect may time out after success: then there is no end, and the parent judges by the recap.
            rc = ansible_runner.run(**request["runner"], event_handler=tell, cancel_callback=cancelled).rc
            print(json.dumps({"type": "end", "rc": rc}), file=out)
        finally:
            end_tree(own_identity())


if __name__ == "__main__":
    main()
