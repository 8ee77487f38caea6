"""``nexusctl kernel build``, ``builds``, ``log`` and ``version-check`` and the real API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images import kernel_boots
from images.models import Kernel
from tests.builds.kernels.conftest import Booter, _no_kernel_is_left, kernel_org
from tests.builds.kernels.kernel_org_mirror import KernelOrgMirror
from tests.builds.kernels.tiny_kernel import FRAGMENT, packed, sha256, tarball, tree
from tests.nexusctl.conftest import Outcome

Ctl = Callable[..., Outcome]

__all__ = ["_no_kernel_is_left", "kernel_org"]
pytestmark = pytest.mark.usefixtures("_no_kernel_is_left")


@pytest.fixture(autouse=True)
def booter(monkeypatch: pytest.MonkeyPatch) -> Booter:
    booter = Booter()
    monkeypatch.setattr(kernel_boots, "_booter", booter)
    return booter


@pytest.fixture
def fragment(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.config"
    path.write_text(FRAGMENT)
    return path


def test_a_kernel_from_a_tarball(ctl: Ctl, tmp_path: Path, fragment: Path) -> None:
    source = tarball(tmp_path / "linux.tar.xz", tree())
    wish = ("kernel", "build", "--source", str(source), "--config", str(fragment), "-j", "2")
    plan = ctl(*wish, "--dry-run")
    assert "Compile the kernel" in plan.out
    assert not Kernel.objects.exists()
    made = ctl(*wish, "--sha256", sha256(source))
    kernel = Kernel.objects.get()
    assert made.out == f"{kernel.name}  {kernel.ref}  good\n"
    assert "qemu: hello after 0.50 s" in made.err
    (row,) = json.loads(ctl("kernel", "builds", "--json").out)
    assert (row["jobs"], row["fragment"], row["compiled"]) == (2, "tiny 1", 3)
    table = ctl("kernel", "builds").out
    assert "3/3" in table
    assert kernel.name in table
    assert "  CC      kernel/fork.o" in ctl("kernel", "log", row["id"], "-f").out
    (shown,) = json.loads(ctl("kernel", "installed", "--json").out)
    assert (shown["state"], shown["boots"]["qemu"]["seconds"]) == ("good", 0.5)


def test_a_kernel_that_does_not_boot_is_told(
    ctl: Ctl, tmp_path: Path, fragment: Path, booter: Booter
) -> None:
    booter.problem = "its console stopped at “Run /init”"
    source = tarball(tmp_path / "linux.tar.xz", tree())
    failed = ctl("kernel", "build", "--source", str(source), "--config", str(fragment))
    assert (failed.code, "stopped at “Run /init”" in failed.err) == (1, True)


def test_what_is_there_ends_with_0_and_what_is_not_with_1(
    ctl: Ctl,
    kernel_org: KernelOrgMirror,
) -> None:
    kernel_org.announce("6.18.2")
    kernel_org.announce("6.1.150", "longterm")
    kernel_org.publish("6.18.2", packed(tree()))
    newest = ctl("kernel", "version-check")
    assert newest.code == 0
    assert "6.18.2" in newest.out
    waiting = ctl("kernel", "version-check", "6.1.150")
    assert (waiting.code, "not there yet" in waiting.err) == (1, True)
    answer: dict[str, Any] = json.loads(ctl("kernel", "version-check", "6.1.150", "--json").out)
    assert (answer["available"], answer["checksums_ready"], answer["buildable"]) == (
        True,
        False,
        False,
    )
    odd = ctl("kernel", "version-check", "six")
    assert (odd.code, "no kernel version" in odd.err) == (1, True)


def test_offline_is_told_in_clear_words(ctl: Ctl, settings: Any) -> None:
    update = {"kernel_releases_url": "http://127.0.0.1:9"}
    settings.NEXUS = settings.NEXUS.model_copy(update=update)
    failed = ctl("kernel", "version-check")
    assert (failed.code, "cannot be reached" in failed.err) == (1, True)
