"""The VM that builds run their commands in, on the real VMM."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from builds.machines import Machine, MachineSpec, provider
from guest_agent.binary import host_tsc_khz
from images import services as image_services
from images.formats.disks import open_disk
from images.formats.e2fsprogs import run_tool
from images.formats.ext4_reader import Ext4
from images.kernel_boots import KernelFiles
from nexus_site.core.errors import Broken, Conflict
from tests.conformance.conftest import BootFiles
from tests.conformance.guests import PATIENCE
from tests.firecracker_release import IN_THE_RIG
from vms import build_machine
from vms.hypervisors.base import Handle
from vms.hypervisors.qemu import Qemu

pytestmark = pytest.mark.live


Until = Callable[[Callable[[], object]], None]


@pytest.fixture(scope="module")
def new_driver(probe_cache: Path) -> Callable[[], Qemu]:
    """No other driver here: builds run on QEMU, which gives anyone a network."""
    if IN_THE_RIG:
        pytest.skip("the rig is there for Firecracker")
    return lambda: Qemu(probe_cache, tsc_khz=host_tsc_khz())


@pytest.fixture(scope="module", autouse=True)
def _kernel_without_rows(boot_files: BootFiles, new_driver: Callable[[], Qemu]) -> Iterator[None]:
    """The boot files and the driver of these tests in place of the database's and the host's."""
    driver = new_driver()
    files = KernelFiles(boot_files.vmlinux, boot_files.bzimage, boot_files.initrd)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_services, "ensure_default_kernel", lambda: None)
        patch.setattr(image_services, "ensure_initrd", lambda kernel: None)
        patch.setattr(image_services, "boot_files", lambda kernel: files)
        patch.setattr(build_machine, "driver_for", lambda name: driver)
        yield


def new_spec(directory: Path, alpine: Path) -> MachineSpec:
    directory.mkdir(exist_ok=True)
    disk = directory / "disk.ext4"
    subprocess.run(["cp", "--sparse=always", alpine, disk], check=True)
    return MachineSpec(directory / "machine", disk, vcpu_count=1, mem_size_mib=256)


def boot(
    spec: MachineSpec, check: Callable[[], None] = lambda: None
) -> AbstractContextManager[Machine]:
    return provider().boot(spec, check=check, note=lambda text: None)


def run(machine: Machine, *argv: str, **wanted: object) -> tuple[int, str]:
    said = bytearray()
    arguments = {"timeout": PATIENCE} | wanted
    code = machine.execute(argv, output=said.extend, **arguments)  # type: ignore[arg-type]
    return code, said.decode()


def shell(machine: Machine, script: str, **wanted: object) -> tuple[int, str]:
    return run(machine, "/bin/sh", "-c", script, **wanted)


@pytest.fixture(scope="module")
def machine(alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One build VM for all tests that leave it as it is."""
    with boot(new_spec(tmp_path_factory.mktemp("shared"), alpine)) as machine:
        yield machine


def test_output_comes_in_order_and_the_exit_code_with_it(machine: Machine) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 7"
    assert shell(machine, script) == (7, "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n")


def test_much_output_comes_whole(machine: Machine) -> None:
    code, said = run(machine, "seq", "1", "300000")
    assert code == 0
    assert said.split() == [str(number) for number in range(1, 300001)]


def test_a_signal_is_an_exit_code_as_in_a_shell(machine: Machine) -> None:
    assert shell(machine, "kill -9 $$") == (137, "")


def test_directory_and_environment_are_the_given_ones(machine: Machine) -> None:
    script = 'pwd; echo "$COLOUR $HOME"; id -u; hostname'
    assert shell(machine, script, cwd="/var", env={"COLOUR": "blue"}) == (
        0,
        "/var\nblue /root\n0\nnexus-build\n",
    )


def test_a_program_that_is_not_there_is_named(machine: Machine) -> None:
    with pytest.raises(Broken, match="no program no-such-thing"):
        run(machine, "no-such-thing")


def test_a_program_that_takes_too_long_is_killed(machine: Machine) -> None:
    with pytest.raises(Conflict, match="within 1 s") as caught:
        shell(machine, "sleep 987 & sleep 987; echo late", timeout=1)
    assert caught.value.code == "timeout"
    assert gone(machine, "sleep 987")


def test_check_gives_up_and_the_program_ends(alpine: Path, machine: Machine) -> None:
    class GivenUpError(Exception):
        pass

    def give_up() -> None:
        raise GivenUpError

    checks, machine._check = machine._check, give_up  # type: ignore[attr-defined]
    try:
        with pytest.raises(GivenUpError):
            shell(machine, "while :; do echo busy; sleep 0.654; done")
    finally:
        machine._check = checks  # type: ignore[attr-defined]
    assert gone(machine, "sleep 0.654")


def gone(machine: Machine, command: str) -> bool:
    """Whether no such command runs in the guest, soon."""
    script = f"for i in $(seq 600); do pgrep -f '^{command}' || exit 0; sleep 0.1; done; exit 1"
    return shell(machine, script)[0] == 0


def test_the_clock_is_the_hosts(machine: Machine) -> None:
    before = int(time.time())
    _, said = run(machine, "date", "+%s")
    assert before - 1 <= int(said) <= time.time() + 1


def test_it_reaches_the_hosts_servers(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("hello from the host\n")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://10.0.2.2:{server.server_port}/hello"
            assert run(machine, "wget", "-q", "-O", "-", url) == (0, "hello from the host\n")
        finally:
            server.shutdown()


def read(disk: Path, path: str) -> bytes:
    with open_disk(disk) as opened:
        for item in Ext4(opened).items():
            if item.entry.path == path:
                return b"".join(data for _, data in item.pieces)
    raise AssertionError(f"{path} is not on the disk")


def remains(directory: Path, processes_in: Callable[[Path], list[int]]) -> list[object]:
    """Processes and sockets of a machine that has ended; its monitor goes last."""
    sockets = [path for path in directory.iterdir() if path.is_socket()]
    return [*processes_in(directory), *sockets]


def test_what_was_written_is_on_a_clean_disk(
    alpine: Path,
    tmp_path: Path,
    processes_in: Callable[[Path], list[int]],
    until: Until,
) -> None:
    """Even where programs that end for nobody are still writing, one of them to a deleted file."""
    spec = replace(new_spec(tmp_path, alpine), vcpu_count=2)
    stubborn = "trap '' TERM; exec 3>/gone; rm /gone; while :; do cat /bin/busybox >&3; done"
    writer = "while :; do dd if=/dev/zero of=/zeros$i bs=64k count=300 2>/dev/null; sync; done"
    script = f"""
        echo kept > /file
        setsid sh -c "{stubborn}" & sleep 0.2
        for i in 1 2 3 4; do setsid sh -c "trap '' TERM; i=$i; {writer}" & done
        sleep 1
    """
    with boot(spec) as machine:
        assert shell(machine, script)[0] == 0
    run_tool("e2fsck", ["-fn", spec.disk])
    assert read(spec.disk, "file") == b"kept\n"
    until(lambda: remains(spec.directory, processes_in) == [])
    assert "reboot: Power down" in (spec.directory / "console.log").read_text()


def test_a_block_that_raises_leaves_nothing(
    alpine: Path, tmp_path: Path, processes_in: Callable[[Path], list[int]], until: Until
) -> None:
    spec = new_spec(tmp_path, alpine)
    with pytest.raises(KeyError), boot(spec):
        raise KeyError
    until(lambda: remains(spec.directory, processes_in) == [])


def test_a_start_can_be_given_up(
    alpine: Path, tmp_path: Path, processes_in: Callable[[Path], list[int]], until: Until
) -> None:
    def give_up() -> None:
        raise Conflict("cancelled")

    spec = new_spec(tmp_path, alpine)
    with pytest.raises(Conflict, match="cancelled"), boot(spec, give_up):
        raise AssertionError("it started")
    until(lambda: remains(spec.directory, processes_in) == [])


def test_a_machine_that_dies_is_told_with_its_last_words(
    alpine: Path, tmp_path: Path, processes_in: Callable[[Path], list[int]], until: Until
) -> None:
    spec = new_spec(tmp_path, alpine)
    with pytest.raises(Broken, match="build VM") as caught, boot(spec) as machine:
        shell(machine, "echo c > /proc/sysrq-trigger; sleep 600")
    assert "panic" in caught.value.detail
    until(lambda: remains(spec.directory, processes_in) == [])


def test_a_disk_that_is_no_file_system_is_told_with_the_consoles_words(tmp_path: Path) -> None:
    spec = MachineSpec(tmp_path / "machine", tmp_path / "disk")
    spec.disk.touch()
    os.truncate(spec.disk, 16 << 20)
    with pytest.raises(Broken, match="build VM") as caught, boot(spec):
        raise AssertionError("it started")
    assert "root file system" in caught.value.detail


def test_what_a_killed_worker_left_is_discarded(
    alpine: Path,
    tmp_path: Path,
    new_driver: Callable[[], Qemu],
    processes_in: Callable[[Path], list[int]],
    until: Until,
) -> None:
    spec = new_spec(tmp_path, alpine)
    spec.directory.mkdir()
    new_driver().launch(build_machine._vmm_spec(spec))  # and the worker is gone
    assert isinstance(new_driver().adopt(spec.directory), Handle)
    provider().discard(spec.directory)
    until(lambda: remains(spec.directory, processes_in) == [])
    provider().discard(spec.directory)
    provider().discard(tmp_path / "never there")
    with boot(spec) as machine:
        assert run(machine, "true") == (0, "")
