"""One systemd container as a machine: started with a NoCloud seed, stopped, forgotten. Nothing else.

Standard library only: the OpenTofu module beside it runs it as a program, from wherever it was copied to.

    machine.py start DIRECTORY < SPEC.json    returns as soon as the machine is switched on
    machine.py stop DIRECTORY                 succeeds when it is gone already
    machine.py reap                           removes what killed runs have left behind

The machine has a network of its own (slirp4netns, as QEMU's user network: the world is reachable, nothing is
changed on the host) and is reached through forwarded ports of 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ADDRESS = "127.0.0.1"
GUEST = "10.0.2.100"  # slirp4netns's own choice, as is the name server beside it
RECORD = "machine.json"
MACHINES = Path(tempfile.gettempdir()) / "deployer-test-machines"
NAMESPACES = (
    *("unshare", "--mount", "--propagation=private", "--net"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)
CGROUPS = tuple(Path("/sys/fs/cgroup") / tree for tree in ("systemd", "unified", "."))

# The supervisor is the first process of a PID namespace: killing it, even with SIGKILL, is a power cut that
# leaves no process, no mount and no network behind, which systemd-nspawn alone does not give. It starts behind
# a gate: nothing boots before the record is written, and a starter that dies before leaves nothing running.
SUPERVISOR = r"""
set -u
directory=$1 image=$2 name=$3 exit_fd=$4
options="lowerdir=$image,upperdir=$directory/upper,workdir=$directory/work"
mount -t overlay overlay -o "$options" "$directory/root" || exit 1
[ ! -s "$directory/prepare.sh" ] || chroot "$directory/root" /bin/sh -e < "$directory/prepare.sh" || exit 1
echo ready
read -r go || exit 1
exec < /dev/null > "$directory/console.log" 2>&1
stopping=
trap 'stopping=1; kill -TERM "$child"' TERM
while :; do
    (
        exec {exit_fd}>&-
        exec systemd-nspawn --quiet --boot --directory "$directory/root" --register=no --keep-unit \
            --resolv-conf=off --timezone=off --link-journal=no --capability=all --hostname "$name"
    ) &
    child=$!
    while wait "$child"; code=$?; kill -0 "$child" 2> /dev/null; do :; done
    # 133 is a reboot asked for inside.
    [ "$code" = 133 ] && [ -z "$stopping" ] || exit "$code"
done
"""

# For machines that cloud-init will not set up: what it would have done.
MANUAL_SETUP = r"""
id {user} 2> /dev/null || useradd --create-home --shell /bin/bash {user}
install -d -m 0700 -o {user} -g {user} /home/{user}/.ssh
printf '%s\n' '{key}' > /home/{user}/.ssh/authorized_keys
chown {user}:{user} /home/{user}/.ssh/authorized_keys
printf '%s\n' '{user} ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/{user}
"""
CLOUD_INIT = {
    "enabled": "",
    "disabled": "touch /etc/cloud/cloud-init.disabled\n",
    "absent": "rm -rf /usr/bin/cloud-init /etc/cloud /lib/systemd/system/cloud-*\n",
}
SSH = {
    "works": "",
    "closed": "systemctl mask ssh.service ssh.socket\n",  # the forwarded port opens, and closes again
    "silent": (  # somebody listens, and never says a word
        "systemctl mask ssh.service ssh.socket\n"
        "printf '%s\\n' '[Socket]' ListenStream=22 > /etc/systemd/system/silent.socket\n"
        "printf '%s\\n' '[Service]' 'ExecStart=/bin/sleep infinity' > /etc/systemd/system/silent.service\n"
        "mkdir -p /etc/systemd/system/sockets.target.wants\n"
        "ln -s ../silent.socket /etc/systemd/system/sockets.target.wants/silent.socket\n"
    ),
}


@dataclass(frozen=True)
class Spec:
    """What to start. `forward` is a list of {host, machine} port pairs, host 0 meaning any free one."""

    image: str
    name: str
    user_data: str
    ssh_public_key: str
    user: str = "deployer"
    forward: list[dict[str, int]] = field(default_factory=list)
    cloud_init: str = "enabled"
    ssh: str = "works"
    owner: int | None = None  # when this process has gone, the machine is waste
    home: str | None = None  # and so it is when this directory has


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return None
        state, *fields = text.rpartition(")")[2].split()
        return None if state in "ZX" else cls(pid, int(fields[18]))

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def end(self, number: signal.Signals, seconds: float) -> bool:
        """Whether it is gone within `seconds` of the signal."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            signal.pidfd_send_signal(descriptor, number)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        except ProcessLookupError:
            return True
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Record:
    """What is running: written before it runs. `ports` maps the machine's ports to this host's."""

    name: str
    process: Process
    network: Process
    port: int
    ports: dict[str, int]
    owner: Process | None
    home: str | None

    @classmethod
    def read(cls, directory: Path) -> Record | None:
        try:
            raw = json.loads((directory / RECORD).read_text())
        except (OSError, ValueError):
            return None
        owner = raw["owner"] and Process(**raw["owner"])
        process, network = Process(**raw["process"]), Process(**raw["network"])
        return cls(raw["name"], process, network, raw["port"], raw["ports"], owner, raw["home"])

    def write(self, directory: Path) -> None:
        temporary = directory / f"{RECORD}.new"
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(directory / RECORD)

    @property
    def abandoned(self) -> bool:
        orphaned = self.owner is not None and not self.owner.alive
        return orphaned or (self.home is not None and not Path(self.home).is_dir())


def start(directory: Path, spec: Spec) -> Record:
    """Switches a new machine on in `directory`, in place of any that was there; does not wait for its boot.

    RuntimeError where the tree, the network or a wanted port cannot be had; nothing is left running then.
    """
    stop(directory)
    _lay_out(directory, spec)
    lifeline, held = os.pipe()  # the network lives as long as the supervisor holds the other end
    supervisor = subprocess.Popen(
        [*NAMESPACES, "bash", "-c", SUPERVISOR, "machine", str(directory), spec.image, spec.name, str(held)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(directory / "console.log").open("w"),
        pass_fds=[held],
        env=_environment(SYSTEMD_NSPAWN_API_VFS_WRITABLE="network"),
        start_new_session=True,
    )
    os.close(held)
    try:
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        if supervisor.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{spec.name} did not start: {(directory / 'console.log').read_text()[-2000:]}")
        children = Path(f"/proc/{supervisor.pid}/task/{supervisor.pid}/children").read_text()
        process = Process.of(int(children.split()[0]))
        if process is None:
            raise RuntimeError(f"{spec.name} ended at once")
        _separate(directory, process)
        network = _connect(directory, process, lifeline)
        port = _forward(directory, 0, 22)
        ports = {str(pair["machine"]): _forward(directory, pair["host"], pair["machine"]) for pair in spec.forward}
        owner = Process.of(spec.owner) if spec.owner else None
        record = Record(spec.name, process, network, port, ports, owner, spec.home)
        record.write(directory)
        supervisor.stdin.write(b"go\n")
        supervisor.stdin.close()
        return record
    except BaseException:
        supervisor.kill()
        supervisor.wait()
        _remove(directory)
        raise
    finally:
        os.close(lifeline)


def stop(directory: Path, *, seconds: float = 20) -> None:
    """Powers the machine off, cuts the power after `seconds`, and removes all it had."""
    record = Record.read(directory)
    if record:
        if not record.process.end(signal.SIGTERM, seconds):
            record.process.end(signal.SIGKILL, 10)
        record.network.end(signal.SIGKILL, 10)  # it is about to end by itself, and has files here
    _remove(directory)


def reap(machines: Path = MACHINES) -> list[str]:
    """The names of the machines removed because whoever wanted them is gone."""
    removed = []
    for directory in sorted(machines.glob("*")):
        record = Record.read(directory)
        with contextlib.suppress(OSError):  # another run may be removing the same one
            # Without a record nothing can be running; the age spares those which are being started just now.
            waste = record.abandoned if record else time.time() - directory.stat().st_mtime > 120
            if waste:
                stop(directory, seconds=0)
                removed.append(directory.name)
    return removed


def _lay_out(directory: Path, spec: Spec) -> None:
    directory.mkdir(mode=0o700, parents=True)
    for part in ("work", "root", "upper"):  # `upper` becomes the machine's /
        (directory / part).mkdir(mode=0o755)
    prepare = CLOUD_INIT[spec.cloud_init] + SSH[spec.ssh]
    if spec.cloud_init != "enabled":
        prepare += MANUAL_SETUP.format(user=spec.user, key=spec.ssh_public_key)
    seed = "var/lib/cloud/seed/nocloud"
    files = {
        "prepare.sh": prepare,
        f"upper/{seed}/user-data": spec.user_data,
        f"upper/{seed}/meta-data": f"instance-id: i-{time.time_ns()}\nlocal-hostname: {spec.name}\n",
        "upper/etc/cloud/cloud.cfg.d/99-network.cfg": "network: {config: disabled}\n",  # it is up already
        "upper/etc/resolv.conf": "nameserver 10.0.2.3\n",
        "upper/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {spec.name}\n",
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.write_text(text)
    (directory / "upper" / seed / "user-data").chmod(0o600)


def _environment(**extra: str) -> dict[str, str]:
    # Whatever secrets the caller's environment holds, the machine outlives the caller.
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        **extra,
    }


def _separate(directory: Path, process: Process) -> None:
    # Sharing a control group, each machine's systemd would take the other's services for its own.
    for tree in CGROUPS:
        if (tree / "cgroup.procs").exists():
            group = tree / _cgroup(directory)
            group.mkdir(exist_ok=True)
            (group / "cgroup.procs").write_text(str(process.pid))


def _connect(directory: Path, process: Process, lifeline: int) -> Process:
    ready, written = os.pipe()
    with (directory / "network.log").open("w") as log:
        slirp = subprocess.Popen(
            [
                *("slirp4netns", "--configure", "--mtu=65520", f"--api-socket={directory / 'network.sock'}"),
                *(f"--ready-fd={written}", f"--exit-fd={lifeline}", str(process.pid), "tap0"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[written, lifeline],
            env=_environment(),
            start_new_session=True,
        )
    os.close(written)
    try:
        network = Process.of(slirp.pid)
        if os.read(ready, 1) != b"1" or network is None:
            raise RuntimeError(f"no network: {(directory / 'network.log').read_text()[-500:]}")
        return network
    finally:
        os.close(ready)


def _forward(directory: Path, host: int, machine: int) -> int:
    attempts = 1 if host else 10  # a free one may be taken by somebody else meanwhile
    for _ in range(attempts):
        chosen = host or _free_port()
        arguments = {
            "proto": "tcp",
            "host_addr": ADDRESS,
            "host_port": chosen,
            "guest_addr": GUEST,
            "guest_port": machine,
        }
        with socket.socket(socket.AF_UNIX) as api:
            api.connect(str(directory / "network.sock"))
            api.sendall(json.dumps({"execute": "add_hostfwd", "arguments": arguments}).encode())
            api.shutdown(socket.SHUT_WR)
            answer = json.loads(api.makefile().read())
        if "return" in answer:
            return chosen
    raise RuntimeError(f"no port of {ADDRESS} could be forwarded to port {machine} (asked for: {host or 'any'})")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _cgroup(directory: Path) -> str:
    return f"deployer-test-{directory.name}"


def _remove(directory: Path) -> None:
    for tree in CGROUPS:
        for group, _, _ in os.walk(tree / _cgroup(directory), topdown=False):
            _remove_cgroup(Path(group))
    if directory.exists():
        shutil.rmtree(directory)


def _remove_cgroup(group: Path) -> None:
    for _ in range(100):  # the kernel needs a moment to notice that the last process has gone
        try:
            return group.rmdir()
        except FileNotFoundError:
            return None
        except OSError:
            time.sleep(0.05)
    return group.rmdir()


def main(arguments: list[str]) -> int | str:
    os.umask(0o022)  # deployer gives its children a private one, and a machine's root is for all its users
    try:
        match arguments:
            case ["start", directory]:
                print(json.dumps(asdict(start(Path(directory), Spec(**json.load(sys.stdin))))))
            case ["stop", directory]:
                stop(Path(directory))
            case ["reap"]:
                print("\n".join(reap()))
            case _:
                return __doc__ or ""
    except (RuntimeError, OSError) as error:
        return str(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
