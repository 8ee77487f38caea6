"""The place of a VMM under Firecracker's jailer: it sees a directory of its own and nothing else.

The jailer runs it as a user and group of its own, in a chroot with /dev/kvm and /dev/net/tun, in
its control group, with the seccomp filters that Firecracker has built in. The rest is here:

    VM_DIR/jail/writable/<name>             links to the disks that are the VMM's for now
    VM_DIR/jail/firecracker/<ref>/root      the chroot, where the jailer looks for it
    VM_DIR/jail/firecracker/<ref>/root/lent files of ours, by bind mounts; ours, so that the VMM
                                            cannot put anything else there
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nexus_site.core.errors import Broken, Invalid
from vms.hypervisors.base import Problem, VmmSpec
from vms.hypervisors.firecracker import cgroups, syscalls
from vms.hypervisors.firecracker.binary import FirecrackerBinary
from vms.hypervisors.firecracker.place import LENT

PROGRAM = "firecracker"  # the release's file name, by which the jailer names a directory
FIRST_UID = 2_000_000_000
#: Each connection over vsock takes one; without the limit a guest could use up the host's.
OPEN_FILES = 4096
REMOVE_SECONDS = 120.0

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MOUNTS = Path("/proc/self/mountinfo")
# linux/capability.h: what the jailer and we need of root's powers.
_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}


class Jail:
    """One VM's jail; see `vms.hypervisors.firecracker.place.Place` for the contract."""

    def __init__(self, vm_dir: Path, ref: str, slot: int, *, groups: Path = cgroups.ROOT) -> None:
        self.base = vm_dir / "jail"
        self.root = self.base / PROGRAM / ref / "root"
        self.uid = FIRST_UID + slot
        self._ref, self._groups = ref, groups
        self._writable = self.base / "writable"

    def prepare(self) -> None:
        self.cleanup()
        (self.root / LENT).mkdir(parents=True)
        self._writable.mkdir()
        (self.root / LENT).chmod(0o755)
        self.root.chmod(0o700)
        os.chown(self.root, self.uid, self.uid)

    def lend(self, name: str, path: Path, *, writable: bool = False) -> str:
        """As in `Place`. Raises Invalid for what is not a file; call it before the start only."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a name for a file in a jail: {name!r}")
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                # A directory would take what is in it with it when the jail is removed.
                raise Invalid(f"“{path}” is not a file.", code="not-a-file")
            source = Path(f"/proc/self/fd/{fd}")
            if writable:
                (self._writable / name).symlink_to(path.resolve())
                os.chown(source, self.uid, self.uid)
            else:
                _let_read(source)
            target = self.root / LENT / name
            target.touch(exist_ok=False)
            syscalls.bind_mount(source, target, writable=writable)
        finally:
            os.close(fd)
        return f"{LENT}/{name}"

    def command(
        self,
        binary: FirecrackerBinary,
        arguments: Sequence[str],
        spec: VmmSpec,
        netns: Path | None,
    ) -> list[str]:
        if binary.jailer is None or binary.path.name != PROGRAM:
            raise Broken(
                f"Firecracker {binary.version} has no jailer that fits.",
                hint="Take a release with one: nexusctl firecracker download",
                code="no-jailer",
            )
        cgroups.make_parent(self._groups)
        limits = cgroups.limits(spec.vcpu_count, spec.mem_size_mib, self._groups)
        # The file size has no limit: the VMM could make many files, and a disk may grow. No
        # --daemonize and no --new-pid-ns: with either the jailer ends at once and leaves the
        # VMM to nobody; the monitor watches the process that it started.
        return [
            *[str(binary.jailer), "--id", self._ref, "--exec-file", str(binary.path)],
            *["--uid", str(self.uid), "--gid", str(self.uid)],
            *["--chroot-base-dir", str(self.base)],
            *["--cgroup-version", "2", "--parent-cgroup", cgroups.PARENT],
            *(word for limit in limits.items() for word in ("--cgroup", "=".join(limit))),
            *["--resource-limit", f"no-file={OPEN_FILES}"],
            *(["--netns", str(netns)] if netns else []),
            *["--", *arguments],
        ]

    def cleanup(self) -> None:
        """As in `Place`; ends the VMM if it still runs. Raises Broken for what stays behind."""
        cgroups.remove(self._ref, self._groups)
        if not self.base.exists():
            return
        for target in _mounts_below(self.base):
            syscalls.unmount(target)
        self._take_back()
        _remove_tree(self.base)

    def _take_back(self) -> None:
        """The disks are ours again, unless they are another VMM's by now."""
        for link in self._writable.glob("*"):
            with suppress(FileNotFoundError):
                fd = os.open(link.readlink(), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    if os.fstat(fd).st_uid == self.uid:
                        os.chown(f"/proc/self/fd/{fd}", os.geteuid(), os.getegid())
                finally:
                    os.close(fd)


def jail_problem(
    binary: FirecrackerBinary | None, directory: Path, groups: Path = cgroups.ROOT
) -> Problem | None:
    """What keeps VMMs from being jailed in directories below `directory`; None if nothing does."""
    if os.geteuid() != 0:
        text = "Nexus does not run as root, so VMMs are not jailed."
        return Problem(text, "Run Nexus as root.")
    if binary is not None and binary.jailer is None:
        text = f"Firecracker {binary.version} came without its jailer."
        return Problem(text, "Take a release that has it.", "nexusctl firecracker download")
    return _powers_problem() or _group_problem(groups) or _mount_problem(directory)


def _powers_problem() -> Problem | None:
    status = Path("/proc/self/status").read_text()
    effective = int(re.findall(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)[0], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if not missing and not _all_users_mapped(Path("/proc/self/uid_map")):
        missing = ["the host's user IDs"]
    if not missing:
        return None
    text = f"Nexus is not root of the whole host: it lacks {', '.join(missing)}."
    return Problem(text, "Run Nexus on the host itself, or in a privileged container.")


def _all_users_mapped(uid_map: Path) -> bool:
    return uid_map.read_text().split() == ["0", "0", "4294967295"]


def _group_problem(groups: Path) -> Problem | None:
    if not (groups / "cgroup.controllers").exists():
        return Problem(
            "This host does not use control groups version 2, so VMMs cannot be held to limits.",
            "Add systemd.unified_cgroup_hierarchy=1 to the host's kernel command line and restart"
            " it.",
        )
    if missing := cgroups.missing_controllers(groups):
        return Problem(
            f"The host's control groups lack: {', '.join(missing)}.",
            "Take cgroup_disable= and cgroup_no_v1= off the host's kernel command line, or run"
            " Nexus outside of a container.",
        )
    if not os.access(groups / "cgroup.subtree_control", os.W_OK) or _is_read_only(groups):
        return Problem(
            "The host's control groups are read-only here.",
            "Run Nexus outside of a container, or in a privileged one with --cgroupns=host.",
        )
    return None


def _mount_problem(directory: Path) -> Problem | None:
    flags = os.statvfs(directory).f_flag
    names = {"nodev": os.ST_NODEV, "noexec": os.ST_NOEXEC}
    found = [name for name, flag in names.items() if flags & flag]
    if not found:
        return None
    options = ",".join({"nodev": "dev", "noexec": "exec"}[name] for name in found)
    mount = _mount_point(directory)
    return Problem(
        f"The file system of {directory} is mounted {' and '.join(found)};"
        " a jail has device files and a program in it.",
        "Mount it without that (also in /etc/fstab), or set NEXUS_DATA_DIR to another.",
        f"mount -o remount,{options} {mount}",
    )


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _mount_point(path: Path) -> Path:
    path = path.resolve()
    return next(parent for parent in (path, *path.parents) if parent.is_mount())


def _let_read(source: Path) -> None:
    """Let others read the file. The directories above are closed to them (0700), so that is only
    who has it lent; shared as it may be by many VMMs, it cannot belong to one of them."""
    mode = stat.S_IMODE(source.stat().st_mode)
    if not mode & stat.S_IROTH:
        source.chmod(mode | stat.S_IROTH)


def _mounts_below(directory: Path) -> list[Path]:
    """Where something is mounted below, the last first."""
    mounts = [
        re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4])
        for line in _MOUNTS.read_bytes().splitlines()
    ]
    prefix = os.fsencode(directory.resolve()) + b"/"
    return [Path(os.fsdecode(mount)) for mount in mounts[::-1] if mount.startswith(prefix)]


def _remove_tree(directory: Path) -> None:
    """By rm: the VMM may have nested directories deeper than Python can follow."""
    command = ["rm", "-rf", "--one-file-system", "--", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=REMOVE_SECONDS)
    if done.returncode:
        raise Broken(
            "A VM's jail cannot be removed.",
            detail=done.stderr,
            hint="Look at what is mounted there (findmnt), and start the VM or delete it again.",
            code="jail-stuck",
        )
