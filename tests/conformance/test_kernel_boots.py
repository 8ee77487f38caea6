"""Whether a kernel boots, tried on the real VMMs with kernels that do and that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_agent.binary import agent_path
from images.initrd import build_initrd
from images.kernel_boots import KernelFiles
from nexus_site.core.errors import Conflict
from tests.conformance.conftest import BootFiles, NewDriver
from vms import kernel_boots
from vms.kernel_boots import KernelBoots

pytestmark = pytest.mark.live


@pytest.fixture
def vmm(new_driver: NewDriver, monkeypatch: pytest.MonkeyPatch) -> str:
    driver = new_driver()
    monkeypatch.setattr(kernel_boots, "driver_for", lambda name: driver)
    return driver.name


def files(boot_files: BootFiles, initrd: Path) -> KernelFiles:
    return KernelFiles(boot_files.vmlinux, boot_files.bzimage, initrd)


def nothing() -> None: ...


def test_a_kernel_that_boots_is_timed(vmm: str, boot_files: BootFiles, tmp_path: Path) -> None:
    tried = KernelBoots().boot(vmm, files(boot_files, boot_files.initrd), tmp_path / vmm, nothing)
    assert tried.problem == ""
    assert tried.seconds is not None
    assert tried.seconds > 0
    KernelBoots().discard(tmp_path / vmm)


def test_one_that_finds_no_root_says_where_it_stopped(
    vmm: str, boot_files: BootFiles, tmp_path: Path
) -> None:
    """The stock kernel without its modules: it knows neither the disk nor its file system."""
    build_initrd(tmp_path / "initrd", agent_path(), [])
    tried = KernelBoots().boot(vmm, files(boot_files, tmp_path / "initrd"), tmp_path / vmm, nothing)
    assert tried.seconds is None
    assert "its console stopped at “nexus-agent: cannot use the root file system" in tried.problem
    assert "Run /init" in tried.console


def test_what_is_no_kernel_is_told(vmm: str, boot_files: BootFiles, tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF" + bytes(4096))
    broken = KernelFiles(tmp_path / "vmlinux", None, boot_files.initrd)
    tried = KernelBoots().boot(vmm, broken, tmp_path / vmm, nothing)
    assert tried.seconds is None
    assert tried.problem


def test_it_can_be_given_up(vmm: str, boot_files: BootFiles, tmp_path: Path) -> None:
    def give_up() -> None:
        raise Conflict("cancelled")

    build_initrd(tmp_path / "initrd", agent_path(), [])
    slow = KernelFiles(boot_files.vmlinux, boot_files.bzimage, tmp_path / "initrd")
    with pytest.raises(Conflict, match="cancelled"):
        KernelBoots().boot(vmm, slow, tmp_path / vmm, give_up)
