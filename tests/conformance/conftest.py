"""Bare boots: real VMs straight from a driver, without database, services or images.

The guest is the embedded kernel with our initrd; its root is a tiny ext4 file system, and the
agent stays its first process. `boot` starts such a VM; a `BareVM` talks with its agent.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from builds.packing import pack_ext4
from guest_agent.binary import agent_path, host_tsc_khz
from guest_agent.connection import AgentConnection
from guest_agent.transports import open_line
from images.formats.disks import open_disk
from images.formats.e2fsprogs import run_tool
from images.formats.ext4_reader import Ext4
from images.initrd import build_initrd, select_modules
from images.providers.embedded import EmbeddedProvider
from images.providers.modules import kernel_modules
from images.trees import Tree
from nexus_site.core.ids import NexusID
from tests import firecracker_release
from tests.conformance.guests import PATIENCE, say_hello
from tests.firecracker_release import GUEST_ARGUMENTS, IN_THE_RIG
from vms.hypervisors import monitored
from vms.hypervisors.base import Disk, Exit, Handle, Hypervisor, VmmSpec
from vms.hypervisors.qemu import Qemu

ALPINE_MIB = 512
SLOTS = count(1)
LOGS = ("console.log", "vmm.log", "metrics.log")
RECORDS = ("launch.json", "monitor.json", "exit.json", "metrics.json")
KEPT = {*LOGS, *(f"{log}.1" for log in LOGS), *(f"{log}.dropped" for log in LOGS), *RECORDS}
ALPINE_ID = UUID(int=1)

Conversation = Callable[[AgentConnection], Awaitable[Any]]
NewDriver = Callable[[], Hypervisor]
NewSpec = Callable[..., VmmSpec]
Boot = Callable[..., "BareVM"]
Remains = Callable[[VmmSpec], list[str]]


@dataclass(frozen=True)
class BootFiles:
    vmlinux: Path
    bzimage: Path
    initrd: Path
    root: Path


@dataclass(frozen=True)
class BareVM:
    """A VM that a driver runs; `spec` is what it was launched with."""

    driver: Hypervisor
    spec: VmmSpec
    handle: Handle

    @property
    def vm_dir(self) -> Path:
        return self.spec.vm_dir

    def talk(self, conversation: Conversation) -> Any:
        """Dial the agent, take its hello, have this conversation, and hang up."""
        return asyncio.run(self._converse(conversation))

    def console(self) -> str:
        return (self.vm_dir / "console.log").read_text(errors="replace")

    def wait(self) -> Exit:
        """How the VMM ended, once it has."""
        ended = monitored.wait(self.handle, PATIENCE)
        assert ended is not None, f"the VMM still runs; its console:\n{self.console()}"
        return ended

    async def _converse(self, conversation: Conversation) -> Any:
        socket = self.driver.agent_socket(self.vm_dir)
        line = open_line(socket.path, guest_dials=socket.guest_dials, uid=socket.uid)
        try:
            try:
                reader, writer = await asyncio.wait_for(line.connect(), PATIENCE)
            except TimeoutError:
                raise AssertionError(f"no agent called; the console:\n{self.console()}") from None
            connection = await AgentConnection.open(reader, writer, hello_timeout=PATIENCE)
            try:
                return await conversation(connection)
            finally:
                await connection.close()
        finally:
            line.close()


@pytest.fixture(scope="session")
def boot_files(tmp_path_factory: pytest.TempPathFactory) -> BootFiles:
    """The embedded kernel, our initrd for it, and a root file system with nothing in it.

    NEXUS_TEST_KERNEL names a vmlinux without modules to take in its place.
    """
    directory = tmp_path_factory.mktemp("boot-files")
    provider = EmbeddedProvider()
    (offer,) = (offer for offer in provider.list_kernels() if offer.arch == "x86_64")
    provider.fetch_kernel(offer, directory)
    files = BootFiles(*(directory / name for name in ("vmlinux", "bzImage", "initrd", "root")))
    modules = select_modules(kernel_modules(directory))
    if other := os.environ.get("NEXUS_TEST_KERNEL"):
        files, modules = replace(files, vmlinux=Path(other)), []
    build_initrd(files.initrd, agent_path(), modules)
    tree = directory / "tree"
    for mount_point in ("proc", "sys", "dev", "run", "tmp"):
        (tree / mount_point).mkdir(parents=True)
    run_tool("mke2fs", ["-q", "-t", "ext4", "-d", tree, files.root, "32M"])
    return files


@pytest.fixture(scope="session")
def alpine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded Alpine as an ext4 file, without its kernel."""
    directory = tmp_path_factory.mktemp("alpine")
    source = EmbeddedProvider()
    (offer,) = (offer for offer in source.offers() if offer.arch == "x86_64")
    tree = Tree.create(directory / "tree")
    with open_disk(source.fetch(offer, directory).path) as disk:
        tree.fill(Ext4(disk).items())
    for path in ("boot", "lib/modules"):
        tree.remove(path)
    image = directory / "alpine.ext4"
    pack_ext4(tree, image, ALPINE_MIB, fs_uuid=ALPINE_ID, hash_seed=ALPINE_ID, timestamp=1)
    return image


@pytest.fixture(scope="session")
def probe_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What drivers found out about this host, once for all of them."""
    return tmp_path_factory.mktemp("probe")


@pytest.fixture(scope="session", params=["qemu", "firecracker"])
def new_driver(
    request: pytest.FixtureRequest, boot_files: BootFiles, probe_cache: Path
) -> NewDriver:
    """Makes a driver as a fresh Nexus would."""
    if request.param == "firecracker":
        return firecracker_release.drivers(probe_cache, boot_files.vmlinux)
    if IN_THE_RIG:
        pytest.skip("the rig is there for Firecracker")
    return lambda: Qemu(probe_cache, tsc_khz=host_tsc_khz())


@pytest.fixture(scope="session")
def new_spec(boot_files: BootFiles, tmp_path_factory: pytest.TempPathFactory) -> NewSpec:
    """Makes specs of VMs; they may be changed by keyword.

    A VM's directory has a name that is longer than a socket's address may be, and odd.
    """

    def make(**changes: Any) -> VmmSpec:
        spec = VmmSpec(
            vm_dir=tmp_path_factory.mktemp("vm") / ('a, long "name" ' + "x" * 100),
            ref=str(NexusID.random()),
            slot=next(SLOTS),
            name="bare",
            vcpu_count=1,
            mem_size_mib=256,
            kernel=boot_files.vmlinux,
            initrd=boot_files.initrd,
            disks=(Disk("root", boot_files.root, read_only=True),),
            mac="52:54:00:00:00:01",
            kernel_args=("nexus.init=none",),
            bzimage=boot_files.bzimage,
        )
        spec = replace(spec, **changes)
        spec.vm_dir.mkdir(exist_ok=True)
        return replace(spec, kernel_args=(*GUEST_ARGUMENTS, *spec.kernel_args))

    return make


@pytest.fixture(scope="module")
def boot(new_driver: NewDriver, new_spec: NewSpec) -> Iterator[Boot]:
    """Launches a VM, of a `spec` or of a new one changed by keyword. None outlives its module.

    With a `snapshot` the guest that was saved in that directory goes on instead.
    """
    launched: list[BareVM] = []

    def launch(
        driver: Hypervisor | None = None,
        spec: VmmSpec | None = None,
        snapshot: Path | None = None,
        **changes: Any,
    ) -> BareVM:
        driver, spec = driver or new_driver(), spec or new_spec(**changes)
        handle = driver.restore(spec, snapshot) if snapshot else driver.launch(spec)
        launched.append(BareVM(driver, spec, handle))
        return launched[-1]

    yield launch
    for vm in launched:
        vm.driver.kill(vm.handle)
        vm.driver.cleanup(vm.vm_dir)


@pytest.fixture(scope="module")
def running(boot: Boot) -> BareVM:
    """One VM that said hello, for all tests of a module that leave it as it is."""
    vm = boot()
    vm.talk(say_hello)
    return vm


@pytest.fixture
def hello() -> Conversation:
    """The shortest conversation: just the agent's hello."""
    return say_hello


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Waits for a state, with patience for a busy machine."""

    def wait_until(state: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not state():
            assert time.monotonic() < deadline, "this state never came"
            time.sleep(0.01)

    return wait_until


@pytest.fixture
def remains() -> Remains:
    """Everything that a VM which has ended must not leave on the host."""

    def find(spec: VmmSpec) -> list[str]:
        inside, ref = f"{spec.vm_dir}/", spec.ref
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            *(f"process {pid}" for pid in processes_of(spec)),
            *(str(path) for path in spec.vm_dir.iterdir() if path.name not in KEPT),
            *(line for line in mounts if inside in line.replace("\\040", " ")),
            *(str(path) for path in Path("/run/netns").glob(f"*{ref}*")),
            *(str(path) for path in Path("/sys/class/net").glob(f"*{ref}*")),
            *(str(path) for path in Path("/sys/fs/cgroup").rglob(f"*{ref}*")),
        ]

    return find


def processes_of(spec: VmmSpec) -> list[int]:
    """The VM's monitor and VMM: they work in its directory, or are named after the VM."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes()
            at_home = (process / "cwd").readlink() == spec.vm_dir
            if at_home or (spec.ref.encode() in words and b"firecracker" in words):
                found.append(int(process.name))
    return found


@pytest.fixture
def processes_in() -> Callable[[Path], list[int]]:
    """The processes that work in a directory: a VM's VMM and monitor."""

    def find(directory: Path) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cwd").readlink() == directory:
                    found.append(int(process.name))
        return found

    return find
