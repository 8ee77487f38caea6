"""How soon a VM is there that goes on from memory: ``./nexus bench start [-n 7] [--peer]``.

An image boots once and becomes a warm template. Then, in turn, the same memory is resumed (a) by
the driver alone, with a plain listener and a drive that is there already, and (b) by
``POST /v1/vms/VM/start`` of a VM with a fresh drive, from the request to the hello; and (c) such
a VM boots. Ten at once, by the driver and by Nexus. Then the memory (PSS) of ten VMs that have
booted and of ten forks of a VM. With ``--peer`` the PyPI package quick-sandbox boots in turn with
``POST /v1/vms/from-image``, both to the result of a first program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.bare import SCRATCH, hello
from bench.peer import create_to_first_result
from bench.server import Server, rest, running_server
from guest_agent import transports
from guest_agent.binary import host_tsc_khz
from images.files import copy_sparse
from vms.hypervisors.base import Disk, Handle, VmmSpec
from vms.hypervisors.qemu import Qemu

MEMORY_MIB = 256
CROWD = 10
PATIENCE = 600  # seconds
WAYS = ("(a) the driver alone", "(b) POST /v1/vms/VM/start", "(c) the same, cold")


@dataclass
class Seconds:
    """What the rounds have measured."""

    bare: list[float]
    resumed: list[float]
    cold: list[float]


def main() -> None:
    options = _options()
    settings = {"NEXUS_WARM_TEMPLATES": "1", "NEXUS_HYPERVISOR": "qemu"}
    with running_server(None, **settings) as server:
        print("Building the image, booting once and making the warm template…", flush=True)
        size = ("--memory", str(MEMORY_MIB))
        server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "first", *size)
        boot = server.get("/v1/vms/first/boots")["items"][0]
        accelerator = boot["accelerator"]
        _until(lambda: _warm_template(server)["state"] == "ready", "the warm template is not made")
        image = server.get("/v1/images")["items"][0]["name"]
        server.ctl("vm", "stop", "first", "--force")
        version = f"{boot['hypervisor']} {boot['hypervisor_version']}"
        print(f"{version}, accelerator {accelerator}; {options.n} rounds, in turn; {_load()}\n")
        with _bare_of(server, accelerator) as bare:
            seconds = _rounds(server, bare, image, options.n)
            _report(seconds)
            _report_crowd(_bare_crowd(bare), _crowd(server, image))
        if options.peer:
            _report_peer(_peers(server, image, accelerator, options.n))
        _report_memory(*_memory(server, image))
        print(_load())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./nexus bench start", description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="rounds (7)")
    parser.add_argument("--peer", action="store_true", help="time quick-sandbox as well")
    return parser.parse_args()


# The driver alone


@dataclass(frozen=True)
class Bare:
    """A warm template's memory and drive, and what it takes to resume them without Nexus."""

    driver: Qemu
    memory: Path
    drive: Path
    kernel: Path
    scratch: Path

    def prepare(self, name: str) -> VmmSpec:
        """A directory and a drive for one more VM."""
        directory = self.scratch / name
        directory.mkdir()
        drive = directory / "root.img"
        drive.touch()
        copy_sparse(self.drive, drive)
        return VmmSpec(
            vm_dir=directory,
            ref=name,
            slot=1,
            name=name,
            vcpu_count=1,
            mem_size_mib=MEMORY_MIB,
            kernel=self.kernel,
            initrd=None,
            disks=(Disk(name, drive),),
            mac="52:54:00:00:00:01",
        )

    def seconds_to_hello(self, spec: VmmSpec) -> float:
        handle, seconds = self.resume(spec)
        self.end(handle)
        return seconds

    def resume(self, spec: VmmSpec) -> tuple[Handle, float]:
        """The VM runs; how long it took from the start to its hello."""
        began = time.monotonic()
        handle = self.driver.restore(spec, self.memory)
        asyncio.run(hello(transports.DialledLine(spec.vm_dir / "agent.sock")))
        return handle, time.monotonic() - began

    def end(self, handle: Handle) -> None:
        self.driver.kill(handle)
        shutil.rmtree(handle.vm_dir)


@contextlib.contextmanager
def _bare_of(server: Server, accelerator: str) -> Iterator[Bare]:
    (memory,) = (server.data_dir / "memory").iterdir()
    (drive,) = (path for path in server.data_dir.glob("drives/snapshots/**/*") if path.is_file())
    (kernel,) = (server.data_dir / "assets").glob("kernels/*/vmlinux")
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        driver = Qemu(Path(scratch), tsc_khz=host_tsc_khz(), accelerator=accelerator)
        yield Bare(driver, memory, drive, kernel, Path(scratch))


def _bare_crowd(bare: Bare) -> float:
    """Seconds until ten that are started at once have all said hello."""
    specs = [bare.prepare(f"crowd{number}") for number in range(CROWD)]
    rest()
    began = time.monotonic()
    with ThreadPoolExecutor(CROWD) as threads:
        resumed = list(threads.map(bare.resume, specs))
    took = time.monotonic() - began
    for handle, _ in resumed:
        bare.end(handle)
    return took


# Through Nexus


def _rounds(server: Server, bare: Bare, image: str, rounds: int) -> Seconds:
    seconds = Seconds([], [], [])
    for number in range(1, rounds + 1):
        spec = bare.prepare(f"bare{number}")
        rest()
        seconds.bare.append(bare.seconds_to_hello(spec))
        seconds.resumed.append(_start(server, image, cold=False))
        seconds.cold.append(_start(server, image, cold=True))
        now = (seconds.bare[-1], seconds.resumed[-1], seconds.cold[-1])
        words = "   ".join(f"{name} {value:6.3f} s" for name, value in zip("abc", now, strict=True))
        print(f"  {number}: {words}", flush=True)
    return seconds


def _start(server: Server, image: str, *, cold: bool) -> float:
    """Start a VM with a fresh drive; seconds from the request to the hello."""
    name = "cold" if cold else "resumed"
    server.ctl("vm", "create", "--name", name, "--image", image, "--memory", str(MEMORY_MIB))
    rest()
    began = time.time()
    operation = server.post(f"/v1/vms/{name}/start", cold=cold)
    _succeeded(server, operation)
    seconds = _hello_at(server, name, resumed=not cold) - began
    server.ctl("vm", "delete", name, "--force", "--yes")
    return seconds


def _crowd(server: Server, image: str) -> float:
    """Seconds from the first of ten requests at once to the last hello."""
    names = [f"crowd-{number}" for number in range(CROWD)]
    for name in names:
        server.ctl("vm", "create", "--name", name, "--image", image, "--memory", str(MEMORY_MIB))
    rest()
    began = time.time()
    with ThreadPoolExecutor(CROWD) as threads:
        started = list(threads.map(lambda name: server.post(f"/v1/vms/{name}/start"), names))
    for operation in started:
        _succeeded(server, operation)
    took = max(_hello_at(server, name, resumed=True) for name in names) - began
    _delete(server, names)
    return took


def _hello_at(server: Server, vm: str, *, resumed: bool) -> float:
    boot = server.get(f"/v1/vms/{vm}/boots")["items"][0]
    if bool(boot["resumed_from"]) != resumed:
        raise SystemExit(f"{vm} was not started as it should have been: {boot['resumed']}")
    return datetime.fromisoformat(boot["hello_at"]).timestamp()


def _succeeded(server: Server, operation: dict[str, Any]) -> dict[str, Any]:
    ended: dict[str, Any] = server.get(f"/v1/operations/{operation['id']}?wait=60")
    if ended["state"] == "running" or ended["state"] == "queued":
        return _succeeded(server, ended)
    if ended["state"] != "succeeded":
        raise SystemExit(f"{ended['title']}: {ended['error']}")
    return ended


def _delete(server: Server, names: list[str]) -> None:
    for name in names:
        server.ctl("vm", "delete", name, "--force", "--yes")


# The peer


def _peers(server: Server, image: str, accelerator: str, rounds: int) -> list[tuple[float, float]]:
    """Seconds from nothing to the result of ``true``: quick-sandbox's, Nexus'."""
    return [
        (create_to_first_result(accelerator), _first_result(server, image)) for _ in range(rounds)
    ]


def _first_result(server: Server, image: str) -> float:
    rest()
    began = time.monotonic()
    wishes = {"image": image, "name": "sandbox", "mem_size_mib": MEMORY_MIB}
    _succeeded(server, server.post("/v1/vms/from-image", **wishes))
    answer = server.post("/v1/vms/sandbox/exec", argv=["true"])
    took = time.monotonic() - began
    if answer["exit_code"] != 0:
        raise SystemExit(f"true does not run: {answer}")
    _delete(server, ["sandbox"])
    return took


# Memory


def _memory(server: Server, image: str) -> tuple[int, int]:
    """PSS in bytes of ten VMs that have booted, and of ten forks of one of them."""
    names = [f"cold-{number}" for number in range(CROWD)]
    for name in names:
        size = ("--memory", str(MEMORY_MIB))
        server.ctl("vm", "from-image", image, "--name", name, "--cold", *size)
    booted = _pss(server, names)
    _delete(server, names[1:])
    operation = server.ctl("vm", "fork", names[0], "-n", str(CROWD))
    forks = [fork["name"] for fork in operation["result"]["forks"]]
    forked = _pss(server, forks)
    _delete(server, [*forks, names[0]])
    return booted, forked


def _pss(server: Server, names: list[str]) -> int:
    """What the VMMs of these VMs take of the memory, what they share shared out between them."""
    rest()
    total = 0
    for name in names:
        vm_dir = server.data_dir / "vms" / server.get(f"/v1/vms/{name}")["id"]
        pid = json.loads((vm_dir / "monitor.json").read_text())["pid"]
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


# The machine


def _warm_template(server: Server) -> dict[str, Any]:
    items = server.get("/v1/warm-templates")["items"]
    if items and items[0]["state"] == "failed":
        raise SystemExit(f"no warm template: {items[0]['problem']}")
    return items[0] if items else {"state": "wanted"}


def _until(over: Callable[[], bool], text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not over():
        if time.monotonic() > deadline:
            raise SystemExit(text)
        time.sleep(0.5)


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


# Reports


def _report(seconds: Seconds) -> None:
    print("\nstart → agent hello                median     min     max")
    for name, values in zip(WAYS, (seconds.bare, seconds.resumed, seconds.cold), strict=True):
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"  {name:<30} {middle:8.3f} {low:7.3f} {high:7.3f} s")
    a, b, c = (statistics.median(part) for part in (seconds.bare, seconds.resumed, seconds.cold))
    print(f"  (b)/(a) = {b / a:.2f}   (target ≤ 2)")
    print(f"  (b) = {b * 1000:.0f} ms   (target < 300 ms)")
    print(f"  (c)/(b) = {c / b:.1f}   (target ≥ 10)\n")


def _report_crowd(bare: float, nexus: float) -> None:
    print(f"{CROWD} at once: the driver alone {bare:.2f} s, Nexus {nexus:.2f} s:", end=" ")
    print(f"{nexus / bare:.2f}   (target ≤ 2)\n")


def _report_peer(rounds: list[tuple[float, float]]) -> None:
    print("create → first result, in turn: quick-sandbox, Nexus")
    for theirs, ours in rounds:
        print(f"  {theirs:6.2f} s {ours:6.3f} s")
    theirs, ours = (statistics.median(part) for part in zip(*rounds, strict=True))
    print(f"  medians {theirs:.2f} s, {ours:.3f} s: {theirs / ours:.0f}×   (target ≥ 50×)\n")


def _report_memory(booted: int, forked: int) -> None:
    print(f"memory (PSS) of {CROWD} VMs: booted {booted >> 20} MiB, forks {forked >> 20} MiB:")
    print(f"  {forked / booted * 100:.0f} %   (target ≤ 30 %)\n")


if __name__ == "__main__":
    main()
