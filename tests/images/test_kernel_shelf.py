"""Kernels from wish to row: fetched from all providers, tried, used, verified, removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from images import kernel_boots, services
from images.models import Kernel
from images.providers.modules import kernel_modules
from images.services import kernel_shelf
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Denied, Invalid
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Event, Operation
from tests.factories import make_kernel
from tests.images.downloads.keys import Key
from tests.images.downloads.server import Mirror
from tests.images.kernels import Booter, Releases, bzimage, deb, modules, vmlinux
from tests.web.conftest import make_ready_vm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]


@pytest.fixture(autouse=True)
def booter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Booter]:
    """No VM is booted here; and no kernel is left."""
    booter = Booter()
    monkeypatch.setattr(kernel_boots, "_booter", booter)
    monkeypatch.setattr("images.services.kernels.host_arch", lambda: "x86_64")
    yield booter
    shutil.rmtree(kernel_shelf.kernels_dir())


@pytest.fixture
def released(mirror: Mirror, settings: Any, tmp_path: Path) -> Releases:
    """A server with releases, at which the settings point."""
    releases = Releases(mirror, tmp_path)
    set_up(settings, anvil_releases_url=releases.url, anvil_releases_keyring=releases.keyring)
    return releases


def set_up(settings: Any, **values: Any) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update=values)


def ended(operation: Operation) -> Operation:
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def downloaded(version: str = "", **wish: str) -> Kernel:
    operation = ended(services.download_kernel(version, **wish))
    assert operation.state == "succeeded", operation.error
    return Kernel.objects.get(pk=NexusID.parse(operation.result["kernel"]))


def refused(operation: Operation) -> tuple[str, list[str]]:
    """The code of its failure, and what it has left."""
    ended(operation)
    assert operation.state == "failed", operation.steps
    return operation.error["code"], files()


def files() -> list[str]:
    directory = kernel_shelf.kernels_dir()
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def local(tmp_path: Path, kernel: bytes, name: str = "vmlinux") -> str:
    (tmp_path / name).write_bytes(kernel)
    return str(tmp_path / name)


def test_the_newest_release_is_fetched_checked_and_booted(
    released: Releases, booter: Booter
) -> None:
    for version in ("6.9.12", "6.12.58"):
        released.publish(version, vmlinux(version, "CONFIG_PVH=y\n"))
    released.publish("7.0.1", arch="aarch64")
    kernel = downloaded()
    assert (kernel.version, kernel.state, kernel.is_default) == ("6.12.58", "good", False)
    assert kernel.verification == f"sha256, OpenPGP {released.key.fingerprint}"
    assert kernel.source == f"{released.url}/vmlinux-6.12.58-x86_64.xz"
    assert kernel.compiler == "gcc 12.2.0, GNU ld 2.40"
    assert services.kernel_config(kernel) == "CONFIG_PVH=y\n"
    assert booter.booted == [("qemu", vmlinux("6.12.58", "CONFIG_PVH=y\n"))]
    assert kernel.boots["qemu"]["seconds"] == 0.25
    assert files() == [kernel.name, f"{kernel.name}/config", f"{kernel.name}/vmlinux"]
    again = downloaded("6.12.58")
    assert (again, len(booter.booted)) == (kernel, 1)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda r: r.sign(Key()), "signature-invalid"),
        (lambda r: r.mirror.add("/kernels/SHA256SUMS.asc", b"nothing"), "signature-invalid"),
        (lambda r: r.mirror.add("/kernels/vmlinux-6.12.58-x86_64.xz", b"other"), "checksum"),
        (lambda r: r.mirror.pages.pop("/kernels/vmlinux-6.12.58-x86_64.xz"), "not-found"),
        (lambda r: r.mirror.pages.pop("/kernels/SHA256SUMS.asc"), "not-found"),
        (lambda r: r.publish("6.12.58", b"#!/bin/sh\n"), "no-bzimage"),
        (lambda r: r.publish("6.12.58", vmlinux(notes=False)), "kernel-without-pvh"),
        (lambda r: r.publish("6.12.58", vmlinux()[:100]), "kernel-damaged"),
        (lambda r: r.sums.clear() or r.sign(r.key), "kernel-not-found"),
    ],
)
def test_releases_that_are_not_right_leave_nothing(
    released: Releases, spoil: Any, code: str
) -> None:
    released.publish("6.12.58")
    spoil(released)
    found, left = refused(services.download_kernel("6.12.58"))
    assert (found.endswith(code), left) == (True, []), found
    assert not Kernel.objects.exists()


def test_a_full_disk_leaves_nothing(released: Releases, monkeypatch: pytest.MonkeyPatch) -> None:
    released.publish("6.12.58")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        code, left = refused(services.download_kernel("6.12.58", "local", path_of(released)))
    assert (code, left) == ("disk-full", [])


def path_of(released: Releases) -> str:
    place = released.keyring.with_name("vmlinux")
    with place.open("wb") as file:
        file.write(vmlinux())
    return str(place)


def test_a_debian_package_gives_kernel_options_and_the_modules_that_guests_need(
    tmp_path: Path,
) -> None:
    version = "6.1.0-56-cloud-amd64"
    path = local(tmp_path, deb(version), "kernel.deb")
    kernel = downloaded(provider="distro", path=path)
    assert (kernel.version, kernel.name) == (version, f"distro-{version.replace('.', '-')}")
    assert (kernel.source, kernel.verification) == (path, "as found on the server")
    assert "CONFIG_EXT4_FS=m" in services.kernel_config(kernel)
    directory = services.kernel_dir(kernel)
    assert sorted(path.name for path in directory.iterdir()) == [
        *("bzImage", "config", "modules.zip", "vmlinux")
    ]
    kept = kernel_modules(directory)
    assert "nobody_needs.ko" not in kept
    assert kept["modules.dep"].decode().splitlines() == [
        "crc32c_generic.ko: ",
        "ext4.ko: jbd2.ko crc32c_generic.ko",
        "jbd2.ko: ",
        "sd_mod.ko: ",
        "virtio_blk.ko: ",
        "virtio_scsi.ko: ",
    ]
    names = [name for name, _ in services.hotplug_modules(kernel)]
    assert names == ["virtio_scsi.ko", "sd_mod.ko"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"!<arch>\nrubbish", "kernel-package"),
        (b"PK\3\4", "kernel-package"),
        (deb("6.1.0-5-amd64", {}), "kernel-package"),
        (deb("6.1.0-5-amd64", package="linux-image-amd64"), "kernel-package"),
        (deb("6.1.0-5-arm64", arch="arm64"), "kernel-arch"),
        (deb("6.1.0-5-amd64")[:-400], "archive-damaged"),
        (deb("6.1.0-5-amd64", {"boot/vmlinuz-6.1": b"no kernel"}), "no-bzimage"),
        (
            deb("6.1.0-5-amd64", {"boot/vmlinuz-6.1": bzimage(vmlinux())}),
            "kernel-module-missing",
        ),
    ],
)
def test_packages_that_will_not_do_leave_nothing(tmp_path: Path, content: bytes, code: str) -> None:
    path = local(tmp_path, content, "kernel.deb")
    assert refused(services.download_kernel(provider="distro", path=path)) == (code, [])
    assert Path(path).exists()


@pytest.mark.parametrize("pack", [lambda data: data, bzimage])
def test_a_file_on_the_server_is_copied(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "config").write_text("CONFIG_PVH=y\n")
    path = local(tmp_path, pack(vmlinux("6.6.1")))
    kernel = downloaded(provider="local", path=str(tmp_path))
    shutil.rmtree(tmp_path)
    assert (kernel.version, kernel.source, kernel.state) == ("6.6.1", path, "good")
    assert (services.kernel_dir(kernel) / "vmlinux").read_bytes() == vmlinux("6.6.1")
    assert services.kernel_config(kernel) == "CONFIG_PVH=y\n"


def test_modules_beside_a_file_come_along(tmp_path: Path) -> None:
    for name, content in modules("6.6.1").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    kernel = downloaded(provider="local", path=local(tmp_path, vmlinux("6.6.1")))
    assert "ext4.ko" in kernel_modules(services.kernel_dir(kernel))


def test_only_allowed_directories_are_looked_at(tmp_path: Path, settings: Any) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    set_up(settings, kernel_paths=[allowed])
    outside = local(tmp_path, vmlinux())
    (allowed / "link").symlink_to(outside)
    for path in (outside, f"{allowed}/../vmlinux", str(allowed / "link")):
        for provider in ("local", "distro"):
            with pytest.raises(Denied, match="may not be taken"):
                services.download_kernel(provider=provider, path=path)
    assert downloaded(provider="local", path=local(allowed, vmlinux())).state == "good"


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"provider": "nope"}, "no provider “nope”"),
        ({"provider": "local"}, "needs a path"),
        ({"provider": "local", "path": "boot"}, "absolute"),
        ({"provider": "embedded", "path": "/boot"}, "A path is for"),
        ({"version": "latest"}, "is no version"),
        ({"version": "../6.1.1"}, "is no version"),
        ({}, "not told where kernels are released"),
    ],
)
def test_wishes_that_make_no_sense_are_refused_at_once(wish: dict[str, str], error: str) -> None:
    with pytest.raises(Invalid, match=error):
        services.download_kernel(**wish)
    assert not Operation.objects.exists()


def test_what_is_not_there_or_another_one_is_said(tmp_path: Path) -> None:
    assert refused(services.download_kernel(provider="local", path="/nowhere/at/all")) == (
        *("kernel-not-found", []),
    )
    other = local(tmp_path, vmlinux("6.6.1"))
    assert refused(services.download_kernel("6.6.2", "local", other)) == (
        *("kernel-says-otherwise", []),
    )
    text = local(tmp_path, b"no kernel")
    assert refused(services.download_kernel(provider="local", path=text)) == ("no-bzimage", [])


def test_two_downloads_do_not_come_at_once() -> None:
    operation = services.download_kernel(provider="embedded")
    with pytest.raises(Conflict) as busy:
        services.download_kernel(provider="embedded")
    assert busy.value.extra == {"operation": operation.ref}


def test_a_kernel_that_does_not_boot_is_bad_and_nobodys_default(
    tmp_path: Path, booter: Booter
) -> None:
    booter.problem = "Its console stopped at: Run /init"
    code, _ = refused(services.download_kernel(provider="local", path=local(tmp_path, vmlinux())))
    kernel = Kernel.objects.get()
    assert (code, kernel.state) == ("kernel-does-not-boot", "bad")
    with pytest.raises(Conflict, match="did not boot") as conflict:
        services.use_kernel(kernel)
    assert (conflict.value.status, conflict.value.code) == (409, "kernel-not-good")
    booter.problem = ""
    assert ended(services.verify_kernel(kernel, boot=True)).state == "succeeded"
    kernel.refresh_from_db()
    assert services.use_kernel(kernel).is_default


def test_without_a_vmm_it_stays_unverified(tmp_path: Path, booter: Booter) -> None:
    booter.vmms = ()
    kernel = downloaded(provider="local", path=local(tmp_path, vmlinux()))
    assert kernel.state == "unverified"
    with pytest.raises(Conflict, match="has not booted yet"):
        services.use_kernel(kernel)


def test_another_default_takes_the_place_of_the_first(tmp_path: Path) -> None:
    first = make_kernel(is_default=True)
    kernel = downloaded(provider="local", path=local(tmp_path, vmlinux()))
    services.use_kernel(kernel)
    services.use_kernel(kernel)
    first.refresh_from_db()
    assert (first.is_default, kernel.is_default) == (False, True)
    assert Event.objects.filter(kind="kernel.default").count() == 1
    assert services.ensure_default_kernel() == kernel
    with pytest.raises(Broken, match="are gone"):
        services.use_kernel(first)


def test_what_is_needed_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = downloaded(provider="local", path=local(tmp_path, vmlinux()))
    directory = services.kernel_dir(kernel)
    with monkeypatch.context() as patch:
        patch.setattr(kernel_shelf, "_users", [lambda: [(int(kernel.pk), "web")]])
        with pytest.raises(Conflict, match="is run by: web"):
            services.remove_kernel(kernel)
    vm = make_ready_vm(name="db", kernel=kernel)
    with pytest.raises(Conflict, match="these VMs start with: db") as pinned:
        services.remove_kernel(kernel)
    assert pinned.value.extra == {"vms": ["db"]}
    vm.kernel = None
    vm.save()
    services.use_kernel(kernel)
    with pytest.raises(Conflict, match="is the default"):
        services.remove_kernel(kernel)
    Kernel.objects.update(is_default=False)
    kernel.refresh_from_db()
    services.remove_kernel(kernel)
    assert (directory.exists(), Kernel.objects.exists()) == (False, False)


@pytest.mark.parametrize("name", ["vmlinux", "config", "modules.zip", "bzImage"])
def test_files_that_changed_are_found_and_come_back(tmp_path: Path, name: str) -> None:
    path = local(tmp_path, deb("6.1.0-56-amd64"), "kernel.deb")
    kernel = downloaded(provider="distro", path=path)
    assert ended(services.verify_kernel(kernel)).state == "succeeded"
    file = services.kernel_dir(kernel) / name
    file.chmod(0o600)
    file.write_bytes(b"other")
    operation = ended(services.verify_kernel(kernel))
    assert (operation.state, operation.error["code"]) == ("failed", "kernel-damaged")
    assert name in operation.error["text"]
    assert downloaded(provider="distro", path=path) == kernel
    assert ended(services.verify_kernel(kernel)).state == "succeeded"


def test_what_nobody_takes_up_is_swept(tmp_path: Path) -> None:
    downloaded(provider="local", path=local(tmp_path, vmlinux()))
    kept, directory = files(), kernel_shelf.kernels_dir()
    (directory / "orphan").mkdir()
    (directory / "6.1-x86_64.deb").write_bytes(b"x")
    services.sweep_assets()
    assert files() == kept
