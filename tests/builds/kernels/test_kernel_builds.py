"""Builds of kernels from wish to row: a tiny source tree, but real make and a real compiler."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from builds import services
from builds.kernels import toolchain
from builds.kernels.making import Workplace
from builds.models import KernelBuild
from builds.workspace import workspace
from images import services as image_services
from images.models import Kernel
from nexus_site.core import operations
from nexus_site.core.errors import Conflict, Invalid, NexusError, NotFound
from nexus_site.core.models import Operation
from tests.builds.kernels.conftest import Booter, run
from tests.builds.kernels.tiny_kernel import COMPILE, FRAGMENT, packed, sha256, tarball, tree

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nudges", "booter", "_no_kernel_is_left"),
]


def start(path: Path, **wishes: Any) -> Operation:
    return services.start_kernel_build(source=str(path), **{"fragment": FRAGMENT} | wishes)


def build(path: Path, **wishes: Any) -> Operation:
    return run(start(path, **wishes))


def assert_failed(operation: Operation, code: str) -> dict[str, Any]:
    """It says why, and nothing of it is left."""
    assert (operation.state, operation.error["code"]) == ("failed", code), operation.error
    made = KernelBuild.objects.get(operation_id=operation.pk)
    assert (made.state, made.error) == ("failed", operation.error)
    assert operation.error["text"] in services.read_log(made).text
    assert_nothing_is_left(made)
    return operation.error


def assert_nothing_is_left(made: KernelBuild) -> None:
    assert not workspace(made).exists()
    assert not Kernel.objects.exists()
    assert list((image_services.assets_dir() / "kernels").glob("*")) == []


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or only waits for whoever reaps orphans here."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_source_becomes_a_kernel_that_has_booted(tmp_path: Path, booter: Booter) -> None:
    path = tarball(tmp_path / "linux.tar.xz", tree())
    operation = build(path, sha256=sha256(path))
    assert operation.state == "succeeded", operation.error
    kernel = Kernel.objects.get()
    assert operation.result["kernel"] == kernel.ref
    assert (kernel.name, kernel.version, kernel.arch) == ("linux-6-1-5-tiny-1", "6.1.5", "x86_64")
    assert (kernel.state, kernel.provider, kernel.is_default) == ("good", "built", False)
    assert kernel.boots["qemu"]["seconds"] == 0.5
    assert booter.booted == ["qemu"]
    assert kernel.compiler.startswith("gcc ")
    assert (kernel.source, kernel.verification) == (str(path), "sha256")
    files = image_services.boot_files(kernel)
    assert sha256(files.vmlinux) == kernel.sha256
    assert files.vmlinux.stat().st_size == kernel.size_bytes
    config = files.vmlinux.with_name("config")
    assert "CONFIG_PVH=y" in config.read_text()
    assert sha256(config) == kernel.config_digest
    made = KernelBuild.objects.get()
    assert (made.state, made.kernel, made.fragment) == ("succeeded", kernel, "tiny 1")
    assert (made.compiled, made.source_sha256) == (3, sha256(path))
    log = services.read_log(made).text
    assert "  CC      kernel/fork.o" in log
    assert "all of them took" in log
    assert not workspace(made).exists()


def test_the_log_says_what_was_added_to_the_source(tmp_path: Path) -> None:
    makefile = {"arch/x86/kernel/Makefile": "obj-y := setup.o\n"}
    assert build(tarball(tmp_path / "t", tree() | makefile)).state == "succeeded"
    log = services.read_log(KernelBuild.objects.get()).text
    assert "  ADD     arch/x86/kernel/nexus_emulation.c" in log


def test_a_kernel_without_modules_needs_none_loaded(tmp_path: Path) -> None:
    build(tarball(tmp_path / "t", tree()))
    kernel = Kernel.objects.get()
    assert image_services.hotplug_modules(kernel) == []
    image_services.ensure_initrd(kernel)


def test_the_same_source_options_and_compiler_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tarball(tmp_path / "t", tree())
    first = build(path)
    for name in ("KBUILD_BUILD_USER", "KBUILD_BUILD_TIMESTAMP", "USER", "MAKEFLAGS"):
        monkeypatch.setenv(name, "k")
    again = build(path)
    assert again.result["kernel"] == first.result["kernel"]
    kernel = Kernel.objects.get()
    vmlinux = image_services.boot_files(kernel).vmlinux.read_bytes()
    assert b"Linux version @nexus nexus 1970-01-01 00:00:00 UTC" in vmlinux
    other = build(tarball(tmp_path / "u", tree(COMPILE.replace("Linux version", "Other"))))
    assert other.result["kernel"] != first.result["kernel"]
    assert Kernel.objects.exclude(pk=kernel.pk).get().name.startswith(f"{kernel.name}-")


def test_an_option_that_does_not_take_is_named(tmp_path: Path) -> None:
    operation = build(tarball(tmp_path / "t", tree()), fragment=FRAGMENT + "CONFIG_NO_SUCH=y\n")
    assert "CONFIG_NO_SUCH=y" in assert_failed(operation, "options-not-taken")["text"]


def test_a_wrong_checksum_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    operation = build(tarball(tmp_path / "t", tree()), sha256="0" * 64)
    error = assert_failed(operation, "checksum")
    assert sha256(tmp_path / "t") in error["detail"]


def test_a_tarball_of_something_else_is_refused(tmp_path: Path) -> None:
    operation = build(tarball(tmp_path / "t", {"README": "hello\n"}))
    assert_failed(operation, "not-a-kernel")


def test_what_is_no_tarball_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(os.urandom(4096))
    assert_failed(build(tmp_path / "t"), "archive-damaged")


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    script = "echo 'kernel/fork.c:7:1: error: expected ;' >&2; exit 2"
    operation = build(tarball(tmp_path / "t", tree(script)))
    assert "error: expected ;" in assert_failed(operation, "kernel-build-failed")["text"]
    log = services.read_log(KernelBuild.objects.get()).text
    assert log.count("*** [Makefile") == 1, "what make said is there once"


def test_a_full_disk_is_told_apart(tmp_path: Path) -> None:
    script = "echo 'ld: final link failed: No space left on device' >&2; exit 1"
    assert_failed(build(tarball(tmp_path / "t", tree(script))), "disk-full")


def test_a_kernel_that_no_microvm_can_start_is_not_kept(tmp_path: Path) -> None:
    files = tree(note=".globl x\nx: .quad 0\n")
    assert_failed(build(tarball(tmp_path / "t", files)), "kernel-without-pvh")


def test_a_kernel_that_does_not_boot_is_kept_as_bad(tmp_path: Path, booter: Booter) -> None:
    booter.problem = "its console stopped at “VFS: Unable to mount root fs”"
    operation = build(tarball(tmp_path / "t", tree()))
    assert (operation.state, operation.error["code"]) == ("failed", "kernel-does-not-boot")
    assert "VFS: Unable to mount root fs" in operation.error["text"]
    kernel = Kernel.objects.get()
    assert kernel.state == Kernel.State.BAD
    kept = next(step for step in operation.steps if step["name"] == "keep")
    assert (kept["state"], kept["note"]) == ("done", f"{kernel.name}, which stays, as bad")
    assert kernel.boots["qemu"]["seconds"] is None
    assert "VFS" in kernel.boots["qemu"]["problem"]
    made = KernelBuild.objects.get()
    assert (made.state, made.kernel) == ("failed", kernel)
    assert not workspace(made).exists()


def test_where_nothing_boots_it_stays_unverified(tmp_path: Path, booter: Booter) -> None:
    booter.vmms = []
    operation = build(tarball(tmp_path / "t", tree()))
    assert operation.state == "succeeded"
    assert "not tried" in operation.steps[-1]["note"]
    assert Kernel.objects.get().state == Kernel.State.UNVERIFIED


def test_cancelling_ends_the_compilers_and_leaves_nothing(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sh -c 'trap \"\" TERM; echo $$$$ > {pids}; sleep 300 & wait'"
    operation = start(tarball(tmp_path / "t", tree(script)))

    def cancel() -> None:
        while not pids.exists():
            time.sleep(0.05)
        operations.cancel(Operation.objects.get(pk=operation.pk))

    thread = threading.Thread(target=cancel)
    thread.start()
    run(operation)
    thread.join()
    assert operation.state == "cancelled"
    made = KernelBuild.objects.get()
    assert made.state == "cancelled"
    assert has_ended(int(pids.read_text()))
    assert_nothing_is_left(made)


def test_cancelling_while_it_boots_takes_the_kernel_away(tmp_path: Path, booter: Booter) -> None:
    def cancelled(*arguments: Any) -> None:
        raise operations.steps.Cancelled("The operation was cancelled.", code="cancelled")

    booter.boot = cancelled  # type: ignore[method-assign,assignment]
    operation = build(tarball(tmp_path / "t", tree()))
    assert operation.state == "cancelled"
    assert_nothing_is_left(KernelBuild.objects.get())


def test_what_a_killed_worker_left_running_is_ended(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "work")
    (place.directory / "source").mkdir(parents=True)
    pids = tmp_path / "pids"
    (place.source / "Makefile").write_text(f"vmlinux:\n\t@echo $$$$ > {pids}; sleep 300\n")
    thread = threading.Thread(target=_ignoring, args=(place,))
    thread.start()
    while not pids.exists() or not pids.read_text():
        time.sleep(0.05)
    place.end_left()
    thread.join()
    assert has_ended(int(pids.read_text()))
    place.end_left()


def _ignoring(place: Workplace) -> None:
    try:
        place.compile(1, lambda data: None)
    except NexusError:
        return
    raise AssertionError("it went on")


def test_missing_tools_are_named_with_the_way_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("make", "gcc", "ld", "strip", "bc", "perl"):
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setattr(toolchain, "PATH", f"{tmp_path}/bin")
    monkeypatch.setitem(toolchain._HEADERS, "no-such-header.h", "libstrange-dev")
    with pytest.raises(Conflict) as caught:
        start(tarball(tmp_path / "t", tree()))
    assert caught.value.code == "build-tools-missing"
    assert "needs flex, bison, no-such-header.h, which" in caught.value.text
    assert caught.value.hint.endswith(
        "install -y --no-install-recommends bison flex libstrange-dev"
    )
    assert not KernelBuild.objects.exists()


@pytest.mark.parametrize(
    ("wishes", "error", "code"),
    [
        ({}, Invalid, "which-source"),
        ({"version": "6.1.5", "source": "/t"}, Invalid, "which-source"),
        ({"version": "six"}, Invalid, "version-invalid"),
        ({"version": "6.1.5/../.."}, Invalid, "version-invalid"),
        ({"source": "/no/such/file"}, NotFound, "source-not-found"),
        ({"source": "etc/passwd"}, Invalid, "source-relative"),
        ({"version": "6.1.5", "arch": "aarch64"}, Invalid, "arch-unsupported"),
        ({"version": "6.1.5", "jobs": 257}, Invalid, "jobs"),
        ({"version": "6.1.5", "sha256": "no"}, Invalid, "sha256"),
        ({"version": "6.1.5", "fragment": "CONFIG_A=m"}, Invalid, "fragment-invalid"),
    ],
)
def test_odd_wishes_are_refused(wishes: dict[str, Any], error: type[NexusError], code: str) -> None:
    with pytest.raises(error) as caught:
        services.start_kernel_build(**wishes)
    assert caught.value.code == code
    assert not KernelBuild.objects.exists()


def test_two_kernels_are_not_built_at_once(tmp_path: Path) -> None:
    path = tarball(tmp_path / "t", tree())
    start(path)
    with pytest.raises(Conflict, match="already"):
        start(path)


def test_the_sweep_takes_away_what_no_build_will_take_up(tmp_path: Path) -> None:
    going = start(tarball(tmp_path / "t", tree()))
    kept = KernelBuild.objects.get()
    ended = KernelBuild.objects.create(
        arch="x86_64", source="/t", fragment="x", fragment_text="x", jobs=1, state="failed"
    )
    for one in (kept, ended):
        workspace(one).mkdir(parents=True)
    services.sweep_kernel_builds()
    assert (workspace(kept).exists(), workspace(ended).exists()) == (True, False)
    assert run(going).state == "succeeded"


def test_a_version_comes_from_the_publisher(tmp_path: Path, kernel_org: Any) -> None:
    kernel_org.publish("6.1.5", packed(tree()))
    operation = run(services.start_kernel_build(version="6.1.5", fragment=FRAGMENT))
    assert operation.state == "succeeded", operation.error
    kernel = Kernel.objects.get()
    assert kernel.source == f"{kernel_org.sources_url}/v6.x/linux-6.1.5.tar.xz"
    assert kernel.verification == f"sha256, OpenPGP {kernel_org.key.fingerprint}"


def test_a_version_that_is_another_inside_is_refused(kernel_org: Any) -> None:
    kernel_org.publish("6.1.6", packed(tree()))
    operation = run(services.start_kernel_build(version="6.1.6", fragment=FRAGMENT))
    assert "6.1.5, not 6.1.6" in assert_failed(operation, "not-a-kernel")["text"]


def test_a_version_that_nobody_signed_is_refused(kernel_org: Any) -> None:
    kernel_org.publish("6.1.5", packed(tree()))
    operation = run(services.start_kernel_build(version="6.1.4", fragment=FRAGMENT))
    assert_failed(operation, "version-not-found")


def test_a_tarball_that_was_changed_after_signing_is_refused(kernel_org: Any) -> None:
    kernel_org.publish("6.1.5", packed(tree()))
    kernel_org.mirror.add("/pub/linux/kernel/v6.x/linux-6.1.5.tar.xz", packed(tree("false")))
    operation = run(services.start_kernel_build(version="6.1.5", fragment=FRAGMENT))
    assert_failed(operation, "checksum")
