"""A publisher, and VMMs that boot what they are told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from images import kernel_boots
from images.kernel_boots import BootTry, KernelFiles
from images.services import assets_dir
from nexus_site.core import operations
from nexus_site.core.models import Operation
from tests.builds.kernels.kernel_org_mirror import KernelOrgMirror
from tests.images.downloads.keys import Key
from tests.images.downloads.server import running_mirror


@dataclass
class Booter:
    """In the place of real VMMs: each kernel boots in half a second, unless it has a problem."""

    vmms: list[str] = field(default_factory=lambda: ["qemu"])
    problem: str = ""
    booted: list[str] = field(default_factory=list)

    def usable(self) -> list[str]:
        return self.vmms

    def boot(
        self, vmm: str, files: KernelFiles, directory: Path, check: Callable[[], None]
    ) -> BootTry:
        assert files.vmlinux.exists()
        assert files.initrd.exists()
        self.booted.append(vmm)
        if self.problem:
            return BootTry(vmm, None, self.problem, f"[0.1] hello\n{self.problem}")
        return BootTry(vmm, 0.5)

    def discard(self, directory: Path) -> None: ...


@pytest.fixture
def booter(monkeypatch: pytest.MonkeyPatch) -> Booter:
    booter = Booter()
    monkeypatch.setattr(kernel_boots, "_booter", booter)
    return booter


@pytest.fixture
def kernel_org(settings: Any, tmp_path: Path) -> Iterator[KernelOrgMirror]:
    """The publisher at which the settings point, with its certificate."""
    with running_mirror() as mirror:
        found = KernelOrgMirror(mirror, Key())
        keyring = tmp_path / "kernel-org.asc"
        keyring.write_text(found.key.armored)
        where = {
            "kernel_releases_url": mirror.url,
            "kernel_sources_url": found.sources_url,
            "kernel_keyring": keyring,
        }
        settings.NEXUS = settings.NEXUS.model_copy(update=where)
        yield found


@pytest.fixture
def _no_kernel_is_left() -> Iterator[None]:
    yield
    for name in ("kernels", "initrd"):
        shutil.rmtree(assets_dir() / name, ignore_errors=True)


def run(operation: Operation) -> Operation:
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation
