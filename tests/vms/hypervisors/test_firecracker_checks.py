"""What is refused before any VMM starts: specs, disks in use, snapshots of other machines."""

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken, Conflict, Invalid
from vms.hypervisors.base import Disk, VmmSpec
from vms.hypervisors.firecracker import FirecrackerBinary, checks, snapshots
from vms.hypervisors.firecracker.locks import locked

VERSION = "1.12.1"


def write_kernel(path: Path, machine: int = 62, start: bytes = b"\x7fELF\x02\x01") -> Path:
    path.write_bytes(start.ljust(18, b"\0") + struct.pack("<H", machine) + bytes(100))
    return path


@pytest.fixture
def spec(tmp_path: Path) -> VmmSpec:
    for name in ("initrd", "disk"):
        (tmp_path / name).write_bytes(bytes(4096))
    return VmmSpec(
        vm_dir=tmp_path,
        ref="aaaaaaaaaayds",
        slot=1,
        name="one",
        vcpu_count=1,
        mem_size_mib=1,
        kernel=write_kernel(tmp_path / "vmlinux"),
        initrd=tmp_path / "initrd",
        disks=(Disk("root", tmp_path / "disk"),),
        mac="52:54:00:00:00:01",
    )


def binary(version: str) -> FirecrackerBinary:
    return FirecrackerBinary(Path("/firecracker"), None, version)


@pytest.mark.parametrize("version", ["1.7.0", "1.12.1", "v1.12.1", "1.14.0-dev", "2.0"])
def test_versions_that_will_do(version: str) -> None:
    checks.check_version(binary(version))


@pytest.mark.parametrize("version", ["1.6.0", "0.25.2", "v1.1.0", "nightly", ""])
def test_versions_that_are_too_old(version: str) -> None:
    with pytest.raises(Broken, match=r"needs 1\.7 or newer") as caught:
        checks.check_version(binary(version))
    assert caught.value.code == "firecracker-too-old"
    assert "nexusctl firecracker download" in caught.value.hint


def test_a_whole_spec_passes(spec: VmmSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    checks.check_files(spec)


@pytest.mark.parametrize(
    ("machine", "built_for"), [(183, "aarch64"), (243, "riscv64"), (8, "machine 8")]
)
def test_a_kernel_for_another_architecture(tmp_path: Path, machine: int, built_for: str) -> None:
    kernel = write_kernel(tmp_path / "kernel", machine)
    with pytest.raises(Invalid, match=f"is for {built_for}, and this host is x86_64") as caught:
        checks.check_kernel(kernel, "x86_64")
    assert caught.value.code == "wrong-architecture"


@pytest.mark.parametrize(
    "contents", [b"", b"\x7fELF", b"MZ" + bytes(1000), b"\x7fELF\x01\x01" + bytes(100)]
)
def test_a_kernel_that_is_not_elf(tmp_path: Path, contents: bytes) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(contents)
    with pytest.raises(Invalid) as caught:
        checks.check_kernel(kernel)
    assert (caught.value.code, caught.value.detail) == ("kernel-not-elf", str(kernel))


Spoil = Callable[[VmmSpec], VmmSpec]


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda spec: replace(spec, kernel=spec.vm_dir / "none"), "kernel"),
        (lambda spec: replace(spec, initrd=spec.vm_dir / "none"), "initrd"),
        (lambda spec: replace(spec, disks=(Disk("data", spec.vm_dir / "none"),)), "disk data"),
        (lambda spec: replace(spec, disks=(Disk("data", spec.vm_dir),)), "disk data"),
        (lambda spec: replace(spec, kernel=Path("/dev/null")), "kernel"),
    ],
)
def test_a_file_that_is_not_there(
    spec: VmmSpec, spoil: Spoil, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(Invalid, match=f"The VM's {what} is not") as caught:
        checks.check_files(spoil(spec))
    assert caught.value.code == "file-missing"
    assert caught.value.detail


@pytest.mark.parametrize("read_only", [True, False])
def test_a_disk_that_may_not_be_used(
    spec: VmmSpec, read_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    spec = replace(spec, disks=(replace(spec.disks[0], read_only=read_only),))
    if read_only:
        checks.check_disks(spec)
        return
    with pytest.raises(Invalid, match="may not write the VM's disk root") as caught:
        checks.check_disks(spec)
    assert caught.value.code == "file-denied"


# Locks


def test_a_disk_has_one_writer(spec: VmmSpec) -> None:
    with (
        locked(spec.disks),
        pytest.raises(Conflict, match="root is locked") as caught,
        locked(spec.disks),
    ):
        pass
    assert caught.value.code == "disk-in-use"
    with locked(spec.disks):
        pass


def test_readers_do_not_lock(spec: VmmSpec) -> None:
    disks = (replace(spec.disks[0], read_only=True),)
    with locked(disks) as files, locked(disks), locked(spec.disks):
        assert files == []


def test_the_lock_lasts_as_long_as_the_file_is_open(spec: VmmSpec) -> None:
    with locked(spec.disks) as files:
        inherited = os.dup(files[0])
    with pytest.raises(Conflict), locked(spec.disks):
        pass
    os.close(inherited)
    with locked(spec.disks):
        pass


# Snapshots


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    directory = tmp_path / "snapshot"
    directory.mkdir()
    (directory / snapshots.STATE).write_bytes(bytes(100))
    (directory / snapshots.MEMORY).write_bytes(bytes(2**20))
    facts = snapshots._host_facts(VERSION) | {
        "vcpu_count": 1,
        "mem_size_mib": 1,
        "disks": 1,
        "network": False,
        "state_size": 100,
    }
    (directory / snapshots.FACTS).write_text(json.dumps(facts))
    return directory


def check(snapshot: Path, spec: VmmSpec, version: str = VERSION, networked: bool = False) -> None:
    snapshots.check(snapshot, spec, version, networked=networked)


def test_a_whole_snapshot_passes(snapshot: Path, spec: VmmSpec) -> None:
    check(snapshot, spec)


def refuse(snapshot: Path, spec: VmmSpec, text: str, **here: object) -> None:
    with pytest.raises(Invalid, match=text) as caught:
        check(snapshot, spec, **here)  # type: ignore[arg-type]
    assert caught.value.code == "snapshot-incompatible"
    assert caught.value.hint


def test_another_machine_cannot_load_it(snapshot: Path, spec: VmmSpec) -> None:
    refuse(snapshot, spec, "version of Firecracker: 1.12.1 there, 1.13.0 here", version="1.13.0")
    refuse(snapshot, spec, "network: False there, True here", networked=True)
    refuse(snapshot, replace(spec, vcpu_count=2), "number of CPUs: 1 there, 2 here")
    refuse(snapshot, replace(spec, mem_size_mib=2), "memory in MiB: 1 there, 2 here")
    refuse(snapshot, replace(spec, disks=()), "number of disks: 1 there, 0 here")


def test_another_cpu_cannot_load_it(
    snapshot: Path, spec: VmmSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Another CPU\n")
    monkeypatch.setattr(snapshots, "CPUINFO", cpuinfo)
    refuse(snapshot, spec, "Another CPU here")


@pytest.mark.parametrize("facts", ["", "{", "[]", '{"driver": "qemu"}', '{"format": 99}'])
def test_facts_of_another_kind(snapshot: Path, spec: VmmSpec, facts: str) -> None:
    (snapshot / snapshots.FACTS).write_text(facts)
    refuse(snapshot, spec, "cannot be loaded here")


@pytest.mark.parametrize("name", [snapshots.STATE, snapshots.MEMORY])
@pytest.mark.parametrize("change", [-1, 1, None])
def test_files_of_another_size(
    snapshot: Path, spec: VmmSpec, name: str, change: int | None
) -> None:
    path = snapshot / name
    if change is None:
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + change)
    refuse(snapshot, spec, f"file {name} is missing or cut off")
