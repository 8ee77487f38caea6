"""How much sooner a kernel made for microVMs is there: ``./nexus bench kernel [-n 7]``.

The kernel of the embedded Alpine, with the initrd of its modules, and the kernel that Nexus builds
of Debian's source (taken from the tests' cache, built if it is not there) boot in turn under the
same VMM, from an empty ext4 root. What is measured is the time from the start of the VMM to the
agent's hello. Each boot gets a root of its own: one that was cut off at its power has to mend its
file system first.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.bare import SCRATCH, hello
from guest_agent import transports
from guest_agent.binary import agent_path, host_tsc_khz
from images.formats.e2fsprogs import run_tool
from images.initrd import build_initrd, select_modules
from images.providers.embedded import EmbeddedProvider
from images.providers.modules import kernel_modules
from tests.kernels import built_kernel
from vms.hypervisors.base import Disk, VmmSpec
from vms.hypervisors.qemu import Qemu

MEMORY_MIB = 256
TARGET = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="./nexus bench kernel", description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="rounds (7)")
    rounds = parser.parse_args().n
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        directory = Path(scratch)
        driver = Qemu(directory, tsc_khz=host_tsc_khz())
        found = driver.probe()
        print(f"{found.name} {found.version}, {rounds} rounds, in turn; {_load()}\n", flush=True)
        specs = {"stock": _stock(directory), "built": _built(directory)}
        for spec in specs.values():  # the first start may try KVM, and fills the page cache
            _seconds_to_hello(driver, spec, directory / "first")
        seconds: dict[str, list[float]] = {name: [] for name in specs}
        for number in range(1, rounds + 1):
            for name, spec in specs.items():
                took = _seconds_to_hello(driver, spec, directory / f"{name}{number}")
                seconds[name].append(took)
            now = "   ".join(f"{name} {values[-1]:6.2f} s" for name, values in seconds.items())
            print(f"  {number}: {now}", flush=True)
        _report(seconds, specs)


def _stock(directory: Path) -> VmmSpec:
    provider = EmbeddedProvider()
    (offer,) = (offer for offer in provider.list_kernels() if offer.arch == "x86_64")
    fetched = provider.fetch_kernel(offer, directory / "stock")
    modules = select_modules(kernel_modules(fetched.directory))
    return _spec(directory, "stock", fetched.vmlinux, modules)


def _built(directory: Path) -> VmmSpec:
    kernel = built_kernel()
    assert kernel is not None, "only a rig has none"
    return _spec(directory, "built", kernel, [])


def _spec(directory: Path, name: str, kernel: Path, modules: list[tuple[str, bytes]]) -> VmmSpec:
    tree, root = directory / f"{name}.tree", directory / f"{name}.ext4"
    for mount_point in ("dev", "proc", "run", "sys", "tmp"):
        (tree / mount_point).mkdir(parents=True)
    run_tool("mke2fs", ["-q", "-t", "ext4", "-d", tree, root, "32M"])
    initrd = directory / f"{name}.cpio"
    build_initrd(initrd, agent_path(), modules)
    return VmmSpec(
        vm_dir=directory,
        ref=name,
        slot=1,
        name=name,
        vcpu_count=1,
        mem_size_mib=MEMORY_MIB,
        kernel=kernel,
        initrd=initrd,
        disks=(Disk("root", root),),
        mac="52:54:00:00:00:01",
        kernel_args=("nexus.init=none",),
    )


def _seconds_to_hello(driver: Qemu, spec: VmmSpec, vm_dir: Path) -> float:
    vm_dir.mkdir(exist_ok=True)
    (root,) = spec.disks
    fresh = replace(root, path=vm_dir / "root.ext4")
    shutil.copyfile(root.path, fresh.path)
    os.sync()
    began = time.monotonic()
    handle = driver.launch(replace(spec, vm_dir=vm_dir, disks=(fresh,)))
    try:
        asyncio.run(hello(transports.DialledLine(vm_dir / "agent.sock")))
        return time.monotonic() - began
    finally:
        driver.kill(handle)
        driver.cleanup(vm_dir)


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


def _report(seconds: dict[str, list[float]], specs: dict[str, VmmSpec]) -> None:
    print("\nstart → agent hello        median     min     max   vmlinux    initrd")
    for name, values in seconds.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        sizes = [
            path.stat().st_size / 1e6 for path in (specs[name].kernel, specs[name].initrd) if path
        ]
        words = "  ".join(f"{size:5.1f} MB" for size in sizes)
        print(f"  {name:<20} {middle:10.2f} {low:7.2f} {high:7.2f} s {words}")
    stock, built = (statistics.median(seconds[name]) for name in ("stock", "built"))
    print(f"  stock/built = {stock / built:.2f}   (target ≥ {TARGET:.0f})\n{_load()}")


if __name__ == "__main__":
    main()
