"""What only the Firecracker driver has, on the real Firecracker."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guest_agent.connection import AgentConnection
from guest_agent.transports import open_line
from nexus_site.core.errors import Invalid
from tests import firecracker_release
from tests.conformance.guests import PATIENCE, copy_disk, run
from vms.hypervisors import monitor
from vms.hypervisors.base import Disk, Exit, RateLimit
from vms.hypervisors.firecracker.changes import PAGE
from vms.hypervisors.firecracker.configuration import Lent, config_file
from vms.hypervisors.firecracker.snapshots import CHANGES

if TYPE_CHECKING:
    from tests.conformance.conftest import (
        BareVM,
        Boot,
        BootFiles,
        Conversation,
        NewDriver,
        NewSpec,
        Remains,
    )

pytestmark = [
    pytest.mark.live,
    pytest.mark.parametrize("new_driver", ["firecracker"], indirect=True),
]

Until = Callable[[Callable[[], object]], None]


def test_without_a_jail_it_does_the_same(
    boot: Boot,
    new_spec: NewSpec,
    boot_files: BootFiles,
    probe_cache: Path,
    hello: Conversation,
    until: Until,
    remains: Remains,
    tmp_path: Path,
) -> None:
    driver = firecracker_release.drivers(probe_cache, boot_files.vmlinux, jailed=False)()
    vm = boot(driver)
    boot_id = vm.talk(hello).boot_id
    assert Path(f"/proc/{vm.handle.pid}/cwd").readlink() == vm.vm_dir
    driver.pause(vm.handle)
    driver.snapshot(vm.handle, tmp_path)
    restored = boot(driver, spec=new_spec(), snapshot=tmp_path)
    assert restored.talk(hello).boot_id == boot_id
    for one in (vm, restored):
        assert isinstance(driver.kill(one.handle), Exit)
        until(lambda: not monitor.runs(one.handle.monitor_pid, one.handle.monitor_started))  # noqa: B023
        driver.cleanup(one.vm_dir)
        assert remains(one.spec) == []


def test_only_what_changed_is_saved_of_a_guest_that_went_on(
    boot: Boot, alpine: Path, new_spec: NewSpec, remains: Remains, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    copy_disk(alpine, root)
    spec = new_spec(disks=(Disk("root", root),), mem_size_mib=128)
    vm = boot(spec=spec)
    vm.talk(lambda agent: run(agent, "sync"))

    def save(name: str) -> Path:
        """What was left for later tells how it was saved."""
        directory = tmp_path / name
        directory.mkdir()
        vm.driver.pause(vm.handle)
        vm.driver.snapshot(vm.handle, directory, later=True)
        return directory

    booted = save("booted")
    assert not (booted / CHANGES).exists()
    vm.driver.kill(vm.handle)
    vm = boot(spec=spec, snapshot=booted)
    vm.talk(lambda agent: run(agent, "head -c 2097152 /dev/urandom >/tmp/new"))

    changed = save("changed")
    assert 2 << 20 < (changed / CHANGES).stat().st_blocks * 512 < 40 << 20
    with pytest.raises(Invalid):
        vm.driver.restore(new_spec(disks=spec.disks, mem_size_mib=128), changed)
    whole = save("whole")
    assert not (whole / CHANGES).exists(), "its base was not whole yet"
    vm.driver.complete(changed)
    assert pages_apart(changed / "memory", whole / "memory") <= 4, "saving itself writes to one"

    # On a tmpfs, what it has written and is still there counts as the VMM's own memory.
    vm.driver.resume(vm.handle)
    os.utime(whole / "memory")
    shutil.rmtree(whole)
    doubtful = save("doubtful")
    assert not (doubtful / CHANGES).exists(), "somebody has written to its base"
    shutil.rmtree(doubtful)
    vm.driver.resume(vm.handle)
    sure = save("sure")
    assert (sure / CHANGES).exists()
    vm.driver.complete(sure)
    vm.driver.resume(vm.handle)
    vm.driver.balloon(vm.handle, 128)
    assert not (save("shrunk") / CHANGES).exists(), "what a guest gives back is not counted"
    vm.driver.kill(vm.handle)
    vm.driver.cleanup(vm.vm_dir)
    assert remains(spec) == []


def pages_apart(one: Path, other: Path) -> int:
    """How many pages of two memories are not the same."""
    with one.open("rb") as a, other.open("rb") as b:
        return sum(b.read(PAGE) != page for page in iter(lambda: a.read(PAGE), b""))


def test_its_log_says_what_runs(running: BareVM, new_driver: NewDriver) -> None:
    log = (running.vm_dir / "vmm.log").read_text()
    assert f"Running Firecracker v{new_driver().probe().version}" in log


def test_it_counts(running: BareVM, hello: Conversation) -> None:
    running.talk(hello)
    metrics = running.driver.metrics(running.handle)
    assert metrics["utc_timestamp_ms"] > 0
    assert metrics["vsock"]["rx_bytes_count"] > 0
    assert running.driver.metrics(running.handle)["utc_timestamp_ms"] > metrics["utc_timestamp_ms"]


def test_a_limited_disk_is_throttled(boot: Boot, alpine: Path, tmp_path: Path) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    copy_disk(alpine, root)
    # So little that a guest which stands still for seconds has not got all it may have by then.
    data.write_bytes(os.urandom(2**19))
    limited = Disk("data", data, read_only=True, limit=RateLimit(bytes_per_second=2**15))
    vm = boot(disks=(Disk("root", root), limited))
    assert vm.talk(lambda agent: run(agent, "cat /dev/vdb | wc -c")).strip() == str(2**19)
    metrics = vm.driver.metrics(vm.handle)
    assert metrics["block_disk1"]["rate_limiter_throttled_events"] > 0
    assert metrics["block_disk0"]["rate_limiter_throttled_events"] == 0


def test_a_config_file_starts_the_same_guest(
    new_driver: NewDriver, new_spec: NewSpec, tmp_path: Path, hello: Conversation
) -> None:
    """What the benchmark compares with."""
    spec = new_spec()
    assert spec.initrd is not None
    lent = Lent(str(spec.kernel), str(spec.initrd), tuple(str(d.path) for d in spec.disks), None)
    (tmp_path / "config.json").write_text(json.dumps(config_file(spec, lent)))
    binary = firecracker_release.installed()
    assert binary is not None

    command = [binary.path, "--no-api", "--config-file", "config.json"]

    async def greet() -> Any:
        reader, writer = await line.connect()
        connection = await AgentConnection.open(reader, writer, hello_timeout=PATIENCE)
        try:
            return await hello(connection)
        finally:
            await connection.close()

    line = open_line(tmp_path / "v.sock_1024", guest_dials=True)
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        try:
            assert asyncio.run(greet()).init == "none"
        finally:
            line.close()
            process.kill()
