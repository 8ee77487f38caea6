"""Jails: what is lent to a VMM, and what is left when it is gone."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken, Invalid
from tests.vms.hypervisors.jails import REF, SLOT, UID, as_vmm
from tests.vms.hypervisors.networks import spec
from vms.hypervisors.firecracker import cgroups, syscalls
from vms.hypervisors.firecracker.binary import FirecrackerBinary
from vms.hypervisors.firecracker.jail import Jail

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes jails")

BINARY = FirecrackerBinary(Path("/releases/firecracker"), Path("/releases/jailer"), "1.12.1")


@pytest.fixture
def vm_dir(tmp_path: Path) -> Path:
    path = tmp_path / "a vm \\ of mine"  # a name that the kernel's list of mounts escapes
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Stands in for a host's control groups; only the files are looked at here."""
    root = tmp_path / "cgroup"
    for group in (root, root / cgroups.PARENT):
        group.mkdir()
        (group / "cgroup.subtree_control").write_text("cpu io\n")
    for name in ("cpu.max", "memory.max", "memory.swap.max", "pids.max"):
        (root / cgroups.PARENT / name).touch()
    return root


@pytest.fixture
def jail(vm_dir: Path, groups: Path) -> Iterator[Jail]:
    made = Jail(vm_dir, REF, SLOT, groups=groups)
    made.prepare()
    yield made
    made.cleanup()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_text("precious")
    path.chmod(0o600)
    return path


def owner(path: Path) -> int:
    return path.stat().st_uid


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


# Lending


def test_a_vmm_has_its_root_and_nobody_else(jail: Jail) -> None:
    assert (owner(jail.root), jail.root.stat().st_gid) == (UID, UID)
    assert stat.S_IMODE(jail.root.stat().st_mode) == 0o700
    as_vmm(jail.root, lambda: Path("/v.sock").touch())
    with pytest.raises(PermissionError):
        as_vmm(jail.root, lambda: Path("/v.sock").read_bytes(), UID + 1)


def test_what_is_lent_to_read(jail: Jail, disk: Path) -> None:
    disk.chmod(0o400)
    name = jail.lend("kernel", disk)
    assert name == "lent/kernel"
    assert as_vmm(jail.root, lambda: Path(name).read_text()) == "precious"
    with pytest.raises(OSError, match="Read-only"):
        as_vmm(jail.root, lambda: Path(name).write_text("!"))
    assert (owner(disk), stat.S_IMODE(disk.stat().st_mode)) == (0, 0o404)


def test_what_is_lent_to_write(jail: Jail, disk: Path) -> None:
    name = jail.lend("disk0", disk, writable=True)
    as_vmm(jail.root, lambda: Path(name).write_text("written"))
    assert disk.read_text() == "written"
    assert stat.S_IMODE(disk.stat().st_mode) == 0o600
    with pytest.raises(PermissionError):
        as_vmm(jail.root, lambda: Path(name).read_text(), UID + 1)
    jail.cleanup()
    assert owner(disk) == 0


def test_a_link_of_ours_is_followed(jail: Jail, disk: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(disk)
    name = jail.lend("disk0", link, writable=True)
    assert as_vmm(jail.root, lambda: Path(name).read_text()) == "precious"
    jail.cleanup()
    assert owner(disk) == 0


@pytest.mark.parametrize("path", ["/etc", "/dev/null"])
def test_only_files_are_lent(jail: Jail, path: str) -> None:
    with pytest.raises(Invalid, match="not a file"):
        jail.lend("disk0", Path(path), writable=True)
    assert list((jail.root / "lent").iterdir()) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../disk"])
def test_names_stay_in_the_jail(jail: Jail, disk: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        jail.lend(name, disk)


def test_a_vmm_cannot_replace_what_is_lent(jail: Jail, disk: Path) -> None:
    name = jail.lend("kernel", disk)
    for attempt in (
        lambda: Path(name).unlink(),
        lambda: Path(name).rename("/kernel"),
        lambda: Path("lent/other").symlink_to("/etc/shadow"),
        lambda: Path("lent").rmdir(),
    ):
        with pytest.raises(OSError, match=r"denied|busy|not empty"):
            as_vmm(jail.root, attempt)


# Leaving


def test_nothing_is_left(jail: Jail, disk: Path, vm_dir: Path, tmp_path: Path) -> None:
    jail.lend("kernel", disk)
    jail.lend("disk0", disk, writable=True)
    jail.cleanup()
    jail.cleanup()
    assert list(vm_dir.iterdir()) == []
    assert str(tmp_path) not in mounts()
    assert disk.read_text() == "precious"


def test_another_process_cleans_up(jail: Jail, disk: Path, vm_dir: Path, groups: Path) -> None:
    jail.lend("disk0", disk, writable=True)
    Jail(vm_dir, REF, SLOT, groups=groups).cleanup()
    assert (list(vm_dir.iterdir()), owner(disk)) == ([], 0)


def test_a_new_start_replaces_what_is_left(jail: Jail, disk: Path) -> None:
    jail.lend("disk0", disk, writable=True)
    (jail.root / "api.sock").touch()
    jail.prepare()
    assert [path.name for path in jail.root.iterdir()] == ["lent"]
    assert list((jail.root / "lent").iterdir()) == []
    assert owner(disk) == 0


def test_after_a_reboot_the_mounts_are_gone(jail: Jail, disk: Path, vm_dir: Path) -> None:
    name = jail.lend("disk0", disk, writable=True)
    syscalls.unmount(jail.root / name)
    jail.cleanup()
    assert (list(vm_dir.iterdir()), owner(disk)) == ([], 0)


@pytest.mark.parametrize("become", ["another", "gone"])
def test_a_disk_that_moved_on_is_left_alone(jail: Jail, disk: Path, become: str) -> None:
    jail.lend("disk0", disk, writable=True)
    if become == "another":
        os.chown(disk, UID + 1, UID + 1)
    else:
        disk.unlink()
    jail.cleanup()
    assert become == "gone" or owner(disk) == UID + 1


def test_removing_the_directory_first_hurts_no_drive(
    jail: Jail, disk: Path, vm_dir: Path, tmp_path: Path
) -> None:
    jail.lend("disk0", disk, writable=True)
    shutil.rmtree(vm_dir, ignore_errors=True)
    jail.cleanup()
    assert disk.read_text() == "precious"
    assert str(tmp_path) not in mounts()


def test_a_vmms_links_are_not_followed(jail: Jail, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    as_vmm(jail.root, lambda: Path("/link").symlink_to(outside))
    as_vmm(jail.root, lambda: Path("/lent2").symlink_to(outside))
    jail.cleanup()
    assert (outside / "file").exists()


def test_a_vmms_directories_may_be_deep_and_closed(jail: Jail, vm_dir: Path) -> None:
    def dig() -> None:
        for _ in range(3000):
            Path("d" * 100).mkdir(0o700)
            os.chdir("d" * 100)
        Path().chmod(0)

    as_vmm(jail.root, dig)
    jail.cleanup()
    assert list(vm_dir.iterdir()) == []


def test_what_cannot_be_removed_is_told(jail: Jail, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = jail.base / "busy"
    busy.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(busy)], check=True)
    with monkeypatch.context() as patch, pytest.raises(Broken, match="cannot be removed"):
        patch.setattr(syscalls, "unmount", lambda target: None)
        jail.cleanup()


# The command


def test_the_command(jail: Jail) -> None:
    netns = Path("/run/netns/nexus-x")
    argv = jail.command(BINARY, ["--api-sock", "api.sock"], spec(SLOT), netns)
    assert argv == [
        *["/releases/jailer", "--id", REF, "--exec-file", "/releases/firecracker"],
        *["--uid", str(UID), "--gid", str(UID)],
        *["--chroot-base-dir", str(jail.base)],
        *["--cgroup-version", "2", "--parent-cgroup", "nexus-vms"],
        *["--cgroup", "cpu.max=200000 100000"],
        *["--cgroup", f"memory.max={256 << 20}"],
        *["--cgroup", f"memory.swap.max={128 << 20}"],
        *["--cgroup", "pids.max=33"],
        *["--resource-limit", "no-file=4096"],
        *["--netns", "/run/netns/nexus-x"],
        *["--", "--api-sock", "api.sock"],
    ]


def test_without_a_network_there_is_no_namespace(jail: Jail) -> None:
    assert "--netns" not in jail.command(BINARY, [], spec(SLOT), None)


@pytest.mark.parametrize(
    "binary",
    [
        FirecrackerBinary(Path("/releases/firecracker"), None, "1.12.1"),
        FirecrackerBinary(Path("/releases/fc"), Path("/releases/jailer"), "1.12.1"),
    ],
)
def test_a_release_without_a_jailer_that_fits(jail: Jail, binary: FirecrackerBinary) -> None:
    with pytest.raises(Broken, match="no jailer") as caught:
        jail.command(binary, [], spec(SLOT), None)
    assert "download" in caught.value.hint
