"""Level 1 as a QEMU process: real ones, with a kernel that finds no disk to start from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from images.providers.embedded import EmbeddedProvider
from tests.rig import machine
from tests.rig.machine import Machine

PATIENCE = 180.0  # seconds


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One without a driver for level 1's disks: it panics."""
    provider = EmbeddedProvider()
    (offer,) = (offer for offer in provider.list_kernels() if offer.arch == "x86_64")
    fetched = provider.fetch_kernel(offer, tmp_path_factory.mktemp("kernel"))
    return fetched.directory / "bzImage"


@pytest.fixture
def level1(kernel: Path, tmp_path: Path) -> Machine:
    for name in ("root, or not", "job"):
        with (tmp_path / name).open("wb") as disk:
            disk.truncate(1 << 20)
    return Machine(
        kernel, tmp_path / "root, or not", tmp_path / "job", tmp_path, cpus=1, memory_mib=256
    )


def test_its_command_line() -> None:
    words = Machine(Path("k"), Path("a,b"), Path("j"), Path("d"), memory_mib=1024).command()
    line = " ".join(words)
    assert "-cpu max" in line, "emulates virtualization, which a model by name may not"
    assert "-accel tcg,thread=multi" in line, "guests hang with one thread"
    assert "tsc=reliable" in line
    assert "-m 1024" in line
    assert "file=a,,b,format=raw,snapshot=on" in line, "what is in the cache is not written to"
    ports = [words[i + 1] for i, word in enumerate(words) if word == "-serial"]
    assert ports == ["file:d/console.log", "file:d/output.log", "file:d/status"]


def test_one_that_dies_is_told_by_its_last_words(level1: Machine) -> None:
    ended = machine.run(level1, PATIENCE)
    assert ended.status is None
    assert ended.problem.startswith("Level 1 ended without a status.")
    assert "Unable to mount root fs" in ended.problem


def test_one_that_hangs_is_stopped(level1: Machine) -> None:
    for_ever = replace(level1, kernel_args=(*machine.KERNEL_ARGS, "panic=0"))
    ended = machine.run(for_ever, 1)
    assert ended.status is None
    assert ended.problem.startswith("Level 1 was stopped: it still ran after 1 s.")
    assert not qemus(level1)


def test_one_that_cannot_start_says_what_qemu_said(level1: Machine, tmp_path: Path) -> None:
    ended = machine.run(replace(level1, job=tmp_path / "nothing"), PATIENCE)
    assert ended.status is None
    assert "Could not open" in ended.problem


def test_no_qemu_stays_when_its_run_is_given_up(level1: Machine) -> None:
    def give_up(data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.run(level1, PATIENCE, give_up)
    assert not qemus(level1)


def qemus(level1: Machine) -> list[int]:
    """The processes that have this machine's console on their command line."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if f"file:{level1.console}" in (process.info["cmdline"] or ())
    ]
