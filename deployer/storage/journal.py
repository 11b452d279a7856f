"""The audit trail: every event as a line of events.jsonl, and one readable log for each run."""

import errno
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

from deployer.events import Event, Notice, Output, Report, printable
from deployer.storage.folder import EnvironmentFolder, private_directory


class Journal:
    """Appends events to an environment's files. A disk that refuses does not stop the run: `report` is told once."""

    def __init__(self, folder: EnvironmentFolder, run_id: str, report: Report) -> None:
        self._folder, self._run_id = folder, run_id
        self.log = folder.logs / f"{run_id}.log"
        self._report = report
        self._refused = False
        self._writing = threading.Lock()
        private_directory(folder.logs)

    def __call__(self, event: Event) -> None:
        """Writes the event down, with the environment and the run it belongs to, then passes it on."""
        event = replace(event, environment=self._folder.name, run_id=self._run_id)
        if not isinstance(event, Output):
            self._append(self._folder.events, json.dumps(event.as_dict()) + "\n")
        self._append(self.log, readable(event) + "\n")
        self._report(event)

    def _append(self, path: Path, line: str) -> None:
        # Opened for each line: a log that somebody removes or rotates meanwhile is simply made anew.
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            data = line.encode("utf-8", errors="replace")
            with open(descriptor, "ab", buffering=0) as file, self._writing:
                end = os.fstat(descriptor).st_size
                if file.write(data) < len(data):  # the disk is full: the next line must not go on where this one broke
                    file.truncate(end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._refused:
                self._refused = True
                message = f"cannot write {path}: {error.strerror}; the run goes on without it"
                self._report(Notice(message=message, level="warning"))


def readable(event: Event) -> str:
    """One line of a run's log: UTC timestamp, what happened, its fields."""
    stamp = event.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(event, Output):
        return f"{stamp} {event.source} | {printable(event.line)}"
    shown = [f"{key}={_field(value)}" for key, value in event.as_dict().items() if key not in ("kind", "at")]
    return " ".join((stamp, event.kind, *shown))


def _field(value: object) -> str:
    text = printable(str(value)).replace("\n", " ")
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
