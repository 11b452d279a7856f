"""A Debian 12 disk made from packages with mmdebstrap, with or without root. Knows nothing of caches or machines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import host
from host import ProviderError, Say

PACKAGES = (
    "systemd-sysv,udev,dbus,cloud-init,openssh-server,python3,python3-apt,sudo,"
    "iproute2,ifupdown,isc-dhcp-client,netbase,ca-certificates,zstd"
)
# Before the kernel is installed: an initrd that holds what a QEMU disk needs and no more boots sooner.
BEFORE_KERNEL = r"""
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/deployer"
cat > "$1/etc/initramfs-tools/hooks/deployer" <<'EOF'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk ext4
EOF
chmod 755 "$1/etc/initramfs-tools/hooks/deployer"
"""
# Each machine makes its own identity. One kind of host key: an RSA key takes ten seconds on an emulated CPU.
LAST = r"""
printf 'datasource_list: [NoCloud, None]\nssh_genkeytypes: [ed25519]\ngrub_dpkg: {enabled: false}\n' \
  > "$1/etc/cloud/cloud.cfg.d/90_deployer.cfg"
echo '/dev/vda / ext4 defaults 0 1' > "$1/etc/fstab"
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/resolv.conf" "$1/etc/hostname"
# It looks for snapshots of LVM, which is not there.
rm -f "$1"/etc/systemd/system/*.wants/e2scrub_reap.service
: > "$1/etc/machine-id"
"""
# Reads the tree on stdin, writes a disk to stdout. Run as root, real or of a user namespace, so that the files keep
# their owners. Device nodes are the kernel's to make, and a namespace may not.
TREE_TO_DISK = r"""
set -e
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; mkdir "$work/root"
tar -xpf - -C "$work/root" --numeric-owner --exclude='./dev/*'
truncate -s 2G "$work/raw"
mke2fs -q -t ext4 -L root -d "$work/root" "$work/raw"
qemu-img convert -O qcow2 "$work/raw" "$work/disk"
cat "$work/disk"
"""


# What is killed together with us must not go on alone.
BOUND = ("setpriv", "--pdeathsig", "TERM")
NAMESPACE = ("mmdebstrap", "--unshare-helper")
# As root mmdebstrap mounts /proc, /sys and the computer's own /dev/shm in the tree. In a mount namespace of its own
# they end with it; without, a build that was killed would leave them, in the way of whoever deletes the tree.
OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")


def recipe() -> str:
    """A short name for what is built: another recipe has another."""
    return hashlib.sha256(json.dumps([PACKAGES, BEFORE_KERNEL, LAST, TREE_TO_DISK]).encode()).hexdigest()[:8]


def missing() -> dict[str, str]:
    """The programs that a build needs and that are not there, with the Debian packages that have them."""
    needed = {"mmdebstrap": "mmdebstrap uidmap", "mke2fs": "e2fsprogs"}  # the latter is in no small Debian 13
    return {program: package for program, package in needed.items() if not shutil.which(program, path=_path())}


def _path() -> str:
    return os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


def build(target: Path, log: Path, say: Say) -> None:
    """Make disk.qcow2, vmlinuz and initrd in `target`. ProviderError with the tools' last words."""
    log.write_bytes(b"")
    with _temporary(target.parent) as temporary:
        kept = ("HOME", "USER", "LOGNAME", "http_proxy", "https_proxy", "no_proxy")
        environment = {key: os.environ[key] for key in kept if key in os.environ}
        environment.update(LANG="C.UTF-8", TMPDIR=str(temporary), PATH=_path())
        tree = target / "root.tar"
        apart = OWN_MOUNTS if os.geteuid() == 0 else ()
        _run([*BOUND, *apart, *_tree_command()], None, tree, log, environment, say)
        _take_kernel(tree, target)
        say("building the base image, once: making the disk...")
        command = [*BOUND, *_as_root(), "sh", "-c", TREE_TO_DISK]
        _run(command, tree, target / "disk.qcow2", log, environment, say)
        tree.unlink()


def _tree_command() -> list[str]:
    argv = ["mmdebstrap", "--variant=minbase", "--format=tar"]
    argv += [f"--include={PACKAGES},linux-image-cloud-{host.architecture().debian}"]
    argv += [f"--dpkgopt=path-exclude=/usr/share/{path}/*" for path in ("doc", "man", "locale")]
    argv += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    return [*argv, f"--essential-hook={BEFORE_KERNEL}", f"--customize-hook={LAST}", "bookworm", "-"]


def _as_root() -> tuple[str, ...]:
    return () if os.geteuid() == 0 else NAMESPACE


def _take_kernel(tree: Path, target: Path) -> None:
    with tarfile.open(tree) as archive:
        for member in archive:
            for prefix, name in (("./boot/vmlinuz-", "vmlinuz"), ("./boot/initrd.img-", "initrd")):
                source = archive.extractfile(member) if member.isfile() and member.name.startswith(prefix) else None
                if source:
                    with open(target / name, "wb") as file:
                        shutil.copyfileobj(source, file)


@contextmanager
def _temporary(cache: Path) -> Iterator[Path]:
    """A folder of ours for the tools' temporary files, which a build that was killed leaves behind.

    Not in /tmp, which is often memory, nor in the cache, which the root of a user namespace cannot enter; and
    writable for that root, who has another uid outside.
    """
    # A cache has one build at a time, and the next one finds what that has left.
    mark = hashlib.sha256(str(cache.absolute()).encode()).hexdigest()[:8]
    folder = Path(f"/var/tmp/deployer-image-{os.getuid()}-{mark}")
    _delete(folder)
    folder.mkdir()
    folder.chmod(0o1777)
    host.need_space(folder, 2.0, "building the base image")
    try:
        yield folder
    finally:
        _delete(folder)


def _delete(folder: Path) -> None:
    """Delete what a build has left, but never anything mounted there: that belongs to the computer. ProviderError."""
    if not folder.exists():
        return
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    inside = [point for point in mounted if point == str(folder) or point.startswith(f"{folder}/")]
    if inside:
        raise ProviderError(f"{inside[0]} is mounted in what is left of a build", f"umount {' '.join(inside)}")
    # Some files belong to the namespace's users and some to us.
    command = [*_as_root(), "rm", "-rf", "--one-file-system", str(folder)]
    subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    own = ["rm", "-rf", "--one-file-system", str(folder)]
    subprocess.run(own, capture_output=True, stdin=subprocess.DEVNULL, check=False)


def _run(argv: list[str], source: Path | None, target: Path, log: Path, environment: dict[str, str], say: Say) -> None:
    """Run a step of the build, telling its own words as it goes. ProviderError with the last of them if it fails."""
    tail: list[str] = []
    with (
        open(source or os.devnull, "rb") as stdin,
        open(target, "wb") as stdout,
        open(log, "a", encoding="utf-8") as record,
    ):
        child = subprocess.Popen(
            argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment, text=True, errors="replace"
        )
        assert child.stderr is not None
        for line in child.stderr:
            record.write(line)
            tail = [*tail, line.strip()][-3:]
            if line.startswith("I: ") and line.rstrip().endswith("..."):
                say(f"building the base image, once: {line[3:].strip()}")
    if child.wait() != 0:
        fix = f"see {log}"
        if os.geteuid() != 0:
            fix += "; without root it needs uidmap (sudo apt install uidmap) and a range in /etc/subuid and /etc/subgid"
        raise ProviderError(f"the build of the base image failed: {' | '.join(tail)}", fix)
