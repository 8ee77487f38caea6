"""What a program must be to be taken for Firecracker: of this machine, honest, quick."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from images.providers.releases import binaries
from nexus_site.core.errors import Broken, Invalid
from tests.images.providers.programs import ARCH, OTHER_ARCH, program


def written(tmp_path: Path, content: bytes, mode: int = 0o555) -> Path:
    path = tmp_path / "firecracker"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "said",
    ["Firecracker v1.12.1\n", "Firecracker v1.12.1\n\nand more\n", "Firecracker v1.12.1"],
)
def test_a_program_is_asked_which_version_it_is(tmp_path: Path, said: str) -> None:
    path = written(tmp_path, program(said))
    binaries.check_program(path, ARCH)
    assert binaries.version_of(path) == "1.12.1"


@pytest.mark.parametrize("version", ["1.13.0-dev", "1.7.0-12-gabcdef0"])
def test_versions_that_people_built_themselves_count_too(tmp_path: Path, version: str) -> None:
    path = written(tmp_path, program(f"Firecracker v{version}\n"))
    assert binaries.version_of(path) == version


@pytest.mark.parametrize(
    "said", ["", "Cloud Hypervisor v1.12.1\n", "Jailer v1.12.1\n", "Firecracker v../../x\n", "\xff"]
)
def test_a_program_that_says_something_else_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(Invalid) as refused:
        binaries.version_of(written(tmp_path, program(said)))
    assert refused.value.code == "release-says-otherwise"


def test_a_jailer_of_another_release_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, program("Jailer v1.11.0\n"))
    with pytest.raises(Invalid, match=r"says that it is 1\.11\.0, not 1\.12\.1"):
        binaries.check_version(path, "1.12.1", "jailer")


def test_a_program_that_talks_for_ever_is_ended(tmp_path: Path) -> None:
    path = written(tmp_path, program("Firecracker v1.12.1\n", forever=True))
    assert binaries.version_of(path) == "1.12.1"


def test_a_program_that_says_nothing_for_ever_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "ANSWER_WITHIN", 0.2)
    with pytest.raises(Invalid, match="does not say"):
        binaries.version_of(written(tmp_path, program("", forever=True)))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\necho Firecracker v1.12.1\n", b"\x7fELF"])
def test_what_is_no_program_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(Invalid) as refused:
        binaries.check_program(written(tmp_path, content), ARCH)
    assert refused.value.code == "release-not-elf"


@pytest.mark.parametrize(("at", "value"), [(4, 1), (5, 2), (16, 4)])
def test_other_kinds_of_elf_are_refused(tmp_path: Path, at: int, value: int) -> None:
    content = bytearray(program("x"))
    content[at] = value
    with pytest.raises(Invalid, match="no 64-bit program"):
        binaries.check_program(written(tmp_path, bytes(content)), ARCH)


def test_a_program_for_another_machine_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, program("Firecracker v1.12.1\n", OTHER_ARCH))
    with pytest.raises(Invalid, match=f"for {OTHER_ARCH}; this machine is {ARCH}") as refused:
        binaries.check_program(path, ARCH)
    assert refused.value.hint == f"Take the release for {ARCH}."


def test_a_damaged_program_does_not_start(tmp_path: Path) -> None:
    content = bytearray(program("x"))
    content[18:20] = (9999).to_bytes(2, "little")
    with pytest.raises(Invalid, match="does not start on this machine"):
        binaries.version_of(written(tmp_path, bytes(content)))


def test_a_program_that_may_not_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="may not be started") as refused:
        binaries.version_of(written(tmp_path, program("x"), mode=0o444))
    assert "noexec" in refused.value.hint


def test_a_program_is_written_where_its_parts_belong_and_no_larger_than_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries.write_program(tmp_path / "a", [(0, b"ab"), (4, b"c")])
    assert (tmp_path / "a").read_bytes() == b"ab\0\0c"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o555
    monkeypatch.setattr(binaries, "MAX_BINARY", 8)
    with pytest.raises(Invalid, match="larger than"):
        binaries.write_program(tmp_path / "b", [(0, b"12345"), (5, b"6789")])
    (tmp_path / "c").write_bytes(b"123456789")
    with pytest.raises(Invalid, match="larger than"):
        binaries.copy_program(tmp_path / "c", tmp_path / "d")


def test_a_file_that_somebody_still_holds_open_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, program("Firecracker v1.12.1\n"), mode=0o755)
    held = path.open("r+b")
    monkeypatch.setattr(binaries, "_BUSY_FOR", 0.1)
    with pytest.raises(Invalid, match="does not start"):
        binaries.version_of(path)
    monkeypatch.setattr(binaries, "_BUSY_FOR", 60.0)
    closing = threading.Timer(0.2, held.close)
    closing.start()
    assert binaries.version_of(path) == "1.12.1"
    closing.join()
