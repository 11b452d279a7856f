"""The child that holds ansible-runner: `python -m deployer.ansible.child REQUEST.json`, a JSON record a line on stdout.

Refuses to know what comes of it. Passes a first request to stop on, and waits until all that it concerns has ended,
which ansible-playbook itself does not; a second ends all at once. It goes on when its parent has been killed: a
playbook broken off half-way helps no one, and the lock's record names us until it ends.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deployer.ansible.results import records_of
from deployer.process import Deadline, Interrupts, end_trees, own_identity, still_in
from deployer.process.identity import children_of

_GRACE = 15.0  # seconds, between the time limit's two requests


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    deadline = Deadline(request["timeout"])
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")  # by the line
    os.dup2(2, 1)  # whatever a library prints is no record

    begun = False
    told: set[int] = set()  # the process groups: of ansible-playbook, and of each worker with what it runs here

    def tell(event: Mapping[str, Any]) -> bool:
        nonlocal begun
        begun = begun or event.get("event") == "playbook_on_start"
        for record in records_of(event):
            print(json.dumps(record), file=out)
        return False  # no file for it

    def requests() -> int:
        over = -deadline.left
        return max(interrupts.count, (over >= 0) + (over >= _GRACE))

    def cancelled() -> bool:
        asked = requests()
        if asked == 1 and begun:
            for playbook in children_of(os.getpid()) if not told else ():
                with suppress(OSError):
                    os.kill(playbook, signal.SIGSTOP)  # it must not start another worker meanwhile
                    told.update((playbook, *children_of(playbook)))
                    os.killpg(playbook, signal.SIGINT)  # once, as from a terminal; it passes it on to its workers
                    os.kill(playbook, signal.SIGCONT)
                    # Who knows them when we are killed: they are in sessions of their own, and the playbook ends first.
                    print(json.dumps({"type": "stopping", "groups": [*told]}), file=out)
        elif asked:
            end_all()  # also before it has begun: nothing is in flight then, and a signal may get lost
            return True
        return False

    def end_all() -> None:
        # ansible-runner would miss the workers: they have sessions of their own.
        end_trees(*still_in(told), own_identity())

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interrupts().listening() as interrupts:
        import ansible_runner  # heavy, and only once the signals are ours

        try:
            # pexpect may time out after success: then there is no end, and the parent judges by the recap.
            rc = ansible_runner.run(**request["runner"], event_handler=tell, cancel_callback=cancelled).rc
            print(json.dumps({"type": "end", "rc": rc}), file=out)
        finally:
            while requests() < 2 and still_in(told):
                time.sleep(0.1)  # ansible-playbook does not wait for what it has asked to stop; we do
            end_all()
            print(json.dumps({"type": "stopping", "groups": []}), file=out)


if __name__ == "__main__":
    main()
