"""Tarballs of kernel sources, honest and not."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from builds.kernels.source_tree import unpack, version_of
from nexus_site.core.errors import Invalid
from tests.builds.kernels.tiny_kernel import tarball, tree


def unpacked(path: Path, tmp_path: Path) -> Path:
    unpack(path, tmp_path / "source", lambda count: None)
    return tmp_path / "source"


@pytest.mark.parametrize("mode", ["w:xz", "w:gz", "w"])
def test_a_tree_comes_out_as_it_went_in(tmp_path: Path, mode: str) -> None:
    files = tree() | {"scripts/link": "-> ../init/main.c", "arch/x86/up": "-> ../../Kconfig"}
    source = unpacked(tarball(tmp_path / "any-name", files, mode=mode), tmp_path)
    assert version_of(source) == "6.1.5"
    assert (source / "scripts/link").read_text() == "/* start_kernel */\n"
    assert (source / "arch/x86/up").read_text() == (source / "Kconfig").read_text()
    assert not (source / "linux-6.1.5").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "../init/../../../outside"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    files = tree() | {"scripts/link": f"-> {target}"}
    with pytest.raises(Invalid, match="leads out"):
        unpacked(tarball(tmp_path / "t", files), tmp_path)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in (("linux", tarfile.DIRTYPE), ("linux/dir", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(outside) if kind == tarfile.SYMTYPE else ""
            tar.addfile(info)
        info = tarfile.TarInfo("linux/dir/file")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"hi"))
    (tmp_path / "t").write_bytes(buffer.getvalue())
    with pytest.raises(Invalid):
        unpacked(tmp_path / "t", tmp_path)
    assert list(outside.iterdir()) == []


def test_a_device_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("linux/mem")
        info.type = tarfile.CHRTYPE
        tar.addfile(info)
    (tmp_path / "t").write_bytes(buffer.getvalue())
    with pytest.raises(Invalid, match="neither file"):
        unpacked(tmp_path / "t", tmp_path)


def test_a_tarball_that_is_cut_off_is_damaged(tmp_path: Path) -> None:
    path = tarball(tmp_path / "t", tree())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Invalid) as caught:
        unpacked(path, tmp_path)
    assert caught.value.code == "archive-damaged"


def test_two_directories_at_the_top_are_no_kernel(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(_two_tops())
    with pytest.raises(Invalid, match="more than one directory") as caught:
        unpacked(tmp_path / "t", tmp_path)
    assert caught.value.code == "not-a-kernel"


def _two_tops() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
    return buffer.getvalue()


def test_what_is_no_kernel_is_told_by_what_it_lacks(tmp_path: Path) -> None:
    source = unpacked(tarball(tmp_path / "t", {"README": "hello\n"}), tmp_path)
    with pytest.raises(Invalid, match="no Makefile, no Kconfig") as caught:
        version_of(source)
    assert caught.value.code == "not-a-kernel"


def test_a_makefile_without_a_version_is_no_kernels(tmp_path: Path) -> None:
    source = unpacked(tarball(tmp_path / "t", tree() | {"Makefile": "all:\n"}), tmp_path)
    with pytest.raises(Invalid, match="which version"):
        version_of(source)
