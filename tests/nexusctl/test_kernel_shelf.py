"""``nexusctl kernel`` and the real API: from a file to the default, and gone again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images import kernel_boots
from images.models import Kernel
from images.services import kernel_shelf, remember_kernel_news, remember_no_kernel_news
from tests.factories import make_kernel, make_vm
from tests.images.kernels import Booter, vmlinux
from tests.nexusctl.conftest import Outcome

Ctl = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def booter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Booter]:
    booter = Booter()
    monkeypatch.setattr(kernel_boots, "_booter", booter)
    yield booter
    shutil.rmtree(kernel_shelf.kernels_dir())


def test_kernels_from_the_first_to_the_last(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "No kernels yet" in ctl("kernel", "installed").err
    assert "asked: never" in ctl("kernel", "list").err
    stock = make_kernel(name="stock", is_default=True, arch="x86_64")
    (tmp_path / "vmlinux").write_bytes(vmlinux("6.12.58", "CONFIG_PVH=y\nCONFIG_NET=y\n"))
    monkeypatch.chdir(tmp_path)
    wish = ("kernel", "download", "--provider", "local", "--path", "vmlinux")
    assert "Boot it on each VMM" in ctl(*wish, "--dry-run").out
    done = ctl(*wish)
    assert (done.code, done.out.split()[::2]) == (0, ["local-6-12-58", "good"])
    assert "nexusctl kernel use local-6-12-58" in done.err
    shown = ctl("kernel", "installed").out
    assert "qemu 0.2 s" in shown
    options = ctl("kernel", "inspect", "local-6-12-58", "--config").out
    assert options == "CONFIG_PVH=y\nCONFIG_NET=y\n"
    assert "as found on the server" in ctl("kernel", "inspect", "local-6-12-58").out
    compared = ctl("kernel", "diff", "stock", "local-6-12-58")
    assert "6.12.58" in compared.out
    assert "not known" in compared.err
    assert ctl("kernel", "use", "local-6-12-58").code == 0
    assert "good" in ctl("kernel", "verify", "local-6-12-58", "--boot").out
    refused = ctl("kernel", "remove", "local-6-12-58", "--yes")
    assert (refused.code, "is the default" in refused.err) == (5, True)
    assert "Would be done" in ctl("kernel", "remove", "stock", "--dry-run").out
    assert ctl("kernel", "remove", "stock", "--yes").code == 0
    assert not Kernel.objects.filter(pk=stock.pk).exists()
    assert "No guest has booted" in ctl("kernel", "scores").err


def test_the_list_tells_what_is_newer_at_kernel_org(ctl: Ctl) -> None:
    assert "kernel.org" not in ctl("kernel", "list").err
    remember_no_kernel_news("www.kernel.org cannot be reached")
    assert "not known: www.kernel.org cannot be reached" in ctl("kernel", "list").err
    remember_kernel_news(["7.1.3"], "7.1.3")
    told = ctl("kernel", "list").err
    assert "Newer at kernel.org: 7.1.3. Build one: nexusctl kernel build 7.1.3. Looked " in told
    assert json.loads(ctl("kernel", "list", "--json").out)["news"]["newer"] == ["7.1.3"]


def test_a_kernel_that_does_not_boot_is_not_used(ctl: Ctl, tmp_path: Path, booter: Booter) -> None:
    booter.problem = "Its console stopped."
    (tmp_path / "vmlinux").write_bytes(vmlinux())
    failed = ctl("kernel", "download", "--provider", "local", "--path", str(tmp_path))
    assert (failed.code, "does not boot" in failed.err) == (1, True)
    refused = ctl("kernel", "use", "local-6-12-58")
    assert (refused.code, "kernel verify local-6-12-58 --boot" in refused.err) == (5, True)


def test_a_vm_is_pinned_and_set_free(ctl: Ctl) -> None:
    kernel, vm = make_kernel(name="new"), make_vm(name="web")
    assert ctl("vm", "update", "web", "--kernel", "new").code == 0
    vm.refresh_from_db()
    assert vm.kernel == kernel
    shown = ctl("kernel", "inspect", "new", "--json")
    assert shown.code == 0, shown.err
    row = json.loads(shown.out)
    assert row["pinned"] == ["web"]
    assert ctl("kernel", "remove", "new", "--yes").code == 5
    assert ctl("vm", "update", "web", "--kernel", "default").code == 0
    vm.refresh_from_db()
    assert vm.kernel is None
    assert ctl("vm", "update", "web", "--kernel", "none-such").code == 4
    Kernel.objects.update(state="bad")
    assert ctl("vm", "update", "web", "--kernel", "new").code == 5
