"""Work in a network namespace, and the programs and questions that networks are made with."""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from typing import TypeVar

from nexus_site.core.errors import Broken

SEARCH = "/usr/sbin:/sbin:/usr/bin:/bin"
PROGRAM_SECONDS = 60.0

_SIOCGIFCONF = 0x8912  # linux/sockios.h
_MOST_ADDRESSES = 32_768
_INTERFACE = struct.Struct("16s4x4s16x")  # ifreq: name, family and port, address

T = TypeVar("T")
#: A program's words, and what it reads.
Job = tuple[list[str], str]


def in_network(enter: Callable[[], None], work: Callable[[], T]) -> T:
    """What `work` returns, done by a thread that first has entered another network namespace.

    Only that thread, and the processes that it starts, are there.
    """

    def enter_and_work() -> T:
        enter()
        return work()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(enter_and_work).result()


def find_program(name: str) -> str | None:
    return shutil.which(name, path=SEARCH)


def ip_job(commands: list[str]) -> Job:
    """iproute2's `ip` for several commands."""
    return [_program("ip"), "-batch", "-"], "\n".join(commands) + "\n"


def nft_job(rules: str) -> Job:
    return [_program("nft"), "-f", "-"], rules


def run_together(*jobs: Job) -> None:
    """Run the programs at the same time, and wait for all. Raises Broken when one fails."""
    running = []
    try:
        for argv, _ in jobs:
            pipe = subprocess.PIPE
            running.append(subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        said = [
            process.communicate(text, timeout=PROGRAM_SECONDS)[1]
            for process, (_, text) in zip(running, jobs, strict=True)
        ]
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    for process, words in zip(running, said, strict=True):
        if process.returncode:
            raise Broken(
                "The network of a VM could not be made or removed.",
                detail=f"{' '.join(process.args)}: {words.strip()}",  # type: ignore[arg-type]
                hint="nexusctl doctor says what this host lacks for networks.",
                code="network-failed",
            )


def host_addresses() -> list[tuple[str, IPv4Address]]:
    """All IPv4 addresses of this network namespace, each with its interface's name."""
    buffer = array.array("B", bytes(_INTERFACE.size * _MOST_ADDRESSES))
    address, length = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("iP", length, address)
        answered, _ = struct.unpack("iP", fcntl.ioctl(asking, _SIOCGIFCONF, request))
    found = _INTERFACE.iter_unpack(buffer[:answered].tobytes())
    return [(os.fsdecode(name.rstrip(b"\0")), IPv4Address(address)) for name, address in found]


def _program(name: str) -> str:
    path = find_program(name)
    if path is None:
        raise Broken(
            f"The program {name} is missing; VMs under Firecracker have no network without it.",
            hint="nexusctl doctor says what to install.",
            code="network-failed",
        )
    return path
