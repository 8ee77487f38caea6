"""What Nexus adds to a kernel's source."""

from __future__ import annotations

from pathlib import Path

from builds.kernels.additions import add_to, additions

NAME = "arch/x86/kernel/nexus_emulation.c"


def source_with(root: Path, *directories: str) -> Path:
    for directory in directories:
        (root / directory).mkdir(parents=True)
        (root / directory / "Makefile").write_text("obj-y := setup.o")
    return root


def test_files_are_added_once_and_built_with_their_directory(tmp_path: Path) -> None:
    source = source_with(tmp_path, "arch/x86/kernel")
    assert add_to(source) == [NAME]
    assert add_to(source) == []
    assert (source / NAME).read_text() == additions()[NAME]
    makefile = (source / NAME).with_name("Makefile").read_text()
    assert makefile.splitlines() == ["obj-y := setup.o", "obj-y += nexus_emulation.o"]


def test_a_kernel_that_is_laid_out_otherwise_is_left_as_it_is(tmp_path: Path) -> None:
    source = source_with(tmp_path, "arch/x86")
    assert add_to(source) == []
    assert not (source / "arch/x86/kernel").exists()


def test_a_file_of_the_same_name_is_the_kernels_own(tmp_path: Path) -> None:
    source = source_with(tmp_path, "arch/x86/kernel")
    (source / NAME).write_text("/* its own */\n")
    assert add_to(source) == []
    assert (source / NAME).read_text() == "/* its own */\n"
