"""The real jailer and the real Firecracker in it, without a guest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nexus_site.core.errors import Conflict, Retryable
from tests.rig import host
from tests.vms.hypervisors.jails import REF, SLOT, UID, as_vmm
from tests.vms.hypervisors.networks import spec
from vms.hypervisors.firecracker import api, cgroups
from vms.hypervisors.firecracker.api import Request
from vms.hypervisors.firecracker.binary import FirecrackerBinary
from vms.hypervisors.firecracker.jail import Jail, jail_problem
from vms.hypervisors.firecracker.network import DEFAULT_POOL, HostNetwork, namespace_of
from vms.hypervisors.firecracker.network_check import network_problem

Until = Callable[[Callable[[], object]], None]

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes jails"),
    pytest.mark.skipif(host.firecracker() is None, reason="the rig has Firecracker and a KVM"),
]


@pytest.fixture(scope="module")
def binary() -> FirecrackerBinary:
    programs = host.firecracker()
    assert programs
    return FirecrackerBinary(programs / "firecracker", programs / "jailer", "1.12.1")


@pytest.fixture
def jail(tmp_path: Path) -> Iterator[Jail]:
    made = Jail(tmp_path, REF, SLOT)
    made.prepare()
    yield made
    made.cleanup()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    path.chmod(0o600)
    return path


@pytest.fixture
def start(
    jail: Jail, binary: FirecrackerBinary, until: Until
) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Firecracker in the jail; returns when its API answers."""
    started: list[subprocess.Popen[bytes]] = []

    def answers() -> bool:
        with suppress(Retryable):
            return bool(api.ask(jail.root, Request("GET", "/version")))
        assert started[0].poll() is None, "the VMM has ended"
        return False

    def start_one(netns: Path | None = None) -> subprocess.Popen[bytes]:
        argv = jail.command(binary, ["--api-sock", api.SOCKET], spec(SLOT), netns)
        started.append(subprocess.Popen(argv, env={}))
        until(answers)
        return started[0]

    yield start_one
    for process in started:
        process.kill()
        process.wait()


Start = Callable[..., "subprocess.Popen[bytes]"]


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (s.partition(":") for s in lines)}


def threads(pid: int) -> list[int]:
    return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]


def test_this_host_can_jail(binary: FirecrackerBinary, tmp_path: Path) -> None:
    assert jail_problem(binary, tmp_path) is None
    assert network_problem(DEFAULT_POOL) is None


def test_the_process_that_was_started_is_the_vmm(start: Start, jail: Jail) -> None:
    process = start()
    said = status(process.pid)
    assert said["Name"] == "firecracker"
    assert (said["Uid"], said["Gid"]) == (f"{UID} {UID} {UID} {UID}",) * 2
    assert int(said["CapEff"], 16) == 0
    # The other threads get their filters with the guest.
    filters = {said["Name"]: said["Seccomp"] for said in map(status, threads(process.pid))}
    assert filters["fc_api"] == "2"
    root = Path(f"/proc/{process.pid}/root")
    assert {path.name for path in root.iterdir()} >= {"lent", "dev", "firecracker", api.SOCKET}
    assert not (root / "etc").exists()


def test_its_control_group_holds_it(start: Start) -> None:
    process = start()
    group = cgroups.ROOT / cgroups.PARENT / REF
    assert Path(f"/proc/{process.pid}/cgroup").read_text() == f"0::/{cgroups.PARENT}/{REF}\n"
    held = {name: (group / name).read_text().strip() for name in ("cpu.max", "pids.max")}
    assert held == {"cpu.max": "200000 100000", "pids.max": "33"}
    assert (group / "memory.max").read_text().strip() == str(256 << 20)


def test_it_uses_what_is_lent_and_no_more(start: Start, jail: Jail, disk: Path) -> None:
    kernel = disk.with_name("kernel")
    kernel.write_bytes(b"not a kernel, but a file")
    kernel.chmod(0o400)
    jail.lend("kernel", kernel)
    jail.lend("disk0", disk, writable=True)
    jail.lend("disk1", disk)
    start()

    def drive(name: str, path: str, *, read_only: bool) -> Request:
        body = {"drive_id": name, "path_on_host": path, "is_root_device": False}
        return Request("PUT", f"/drives/{name}", body | {"is_read_only": read_only})

    boot = {"kernel_image_path": "lent/kernel", "boot_args": "console=ttyS0"}
    api.ask(
        jail.root,
        Request("PUT", "/boot-source", boot),
        drive("disk0", "lent/disk0", read_only=False),
        drive("disk1", "lent/disk1", read_only=True),
    )
    with pytest.raises(Conflict, match="refuses") as caught:
        api.ask(jail.root, drive("disk2", "lent/disk1", read_only=False))
    assert "Read-only file system" in caught.value.detail
    with pytest.raises(Conflict, match="refuses") as caught:
        api.ask(jail.root, drive("disk2", str(disk), read_only=False))
    assert "No such file" in caught.value.detail


def test_cleanup_ends_it_and_leaves_nothing(start: Start, jail: Jail, disk: Path) -> None:
    jail.lend("disk0", disk, writable=True)
    process = start()
    jail.cleanup()
    jail.cleanup()
    assert process.wait(60) == -9
    assert sorted(path.name for path in disk.parent.iterdir()) == [disk.name]
    assert not (cgroups.ROOT / cgroups.PARENT / REF).exists()
    assert str(disk.parent) not in Path("/proc/self/mountinfo").read_text()
    assert disk.stat().st_uid == 0


def test_its_network_is_its_namespace(start: Start) -> None:
    network, vm = HostNetwork(), spec(SLOT)
    plan = network.prepare(vm, UID)
    try:
        process = start(plan.netns)
        assert Path(f"/proc/{process.pid}/ns/net").stat() == namespace_of(vm.ref).stat()
    finally:
        network.cleanup(vm.ref)
    assert not namespace_of(vm.ref).exists()


def test_a_vmm_that_has_turned_bad_stays_in(start: Start, jail: Jail, tmp_path: Path) -> None:
    """Its user, in its chroot, beside it: no other file, and no other process."""
    process = start()
    (tmp_path / "secret").touch()
    with pytest.raises(FileNotFoundError):
        as_vmm(jail.root, lambda: Path(tmp_path / "secret").read_text())
    with pytest.raises(PermissionError):
        as_vmm(jail.root, lambda: os.kill(os.getppid(), 0))
    with pytest.raises(PermissionError):
        as_vmm(jail.root, lambda: os.kill(process.pid, 0), UID + 1)
