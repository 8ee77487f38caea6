"""VMMs started without Nexus: what the same VM costs when nothing is added."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.server import Server
from guest_agent import transports
from guest_agent.connection import AgentConnection
from guest_agent.transports import AgentLine
from vms.hypervisors.firecracker import api
from vms.hypervisors.firecracker.configuration import AGENT_PORT, VSOCK
from vms.hypervisors.firecracker.network import HostNetwork
from vms.hypervisors.firecracker.place import LENT
from vms.hypervisors.firecracker.premises import Premises

TIMEOUT = 300
SCRATCH = "nexus-bare-"


@dataclass(frozen=True)
class BareQemu:
    """The command that Nexus starts the VM with, in an empty directory."""

    argv: list[str]
    env: dict[str, str]

    @classmethod
    def of(cls, server: Server, vm: dict[str, Any]) -> BareQemu:
        launch = json.loads((server.data_dir / "vms" / vm["id"] / "launch.json").read_text())
        return cls([_memory_of_its_own(word) for word in launch["argv"]], launch["env"])

    def seconds_to_hello(self) -> float:
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
            began = time.monotonic()
            with _running(self.argv, Path(scratch), self.env):
                asyncio.run(hello(transports.DialledLine(Path(scratch, "agent.sock"))))
                return time.monotonic() - began


def _memory_of_its_own(word: str) -> str:
    """The same, where it is about memory that Nexus has made for the VM and holds open."""
    if '"memory-backend-file"' not in word:
        return word
    memory = {key: value for key, value in json.loads(word).items() if key != "mem-path"}
    return json.dumps(memory | {"qom-type": "memory-backend-memfd"})


@dataclass(frozen=True)
class BareFirecracker:
    """What the VMM of a running VM was told, as the config file of one in an empty directory."""

    program: Path
    config: dict[str, Any]
    files: dict[str, Path]  # by the names that the configuration has for them

    @classmethod
    def of(cls, server: Server, vm: dict[str, Any]) -> BareFirecracker:
        vm_dir = server.data_dir / "vms" / vm["id"]
        (config,) = api.ask(_root(vm_dir), api.Request("GET", "/vm/config"))
        assets = server.data_dir / "assets"
        (kernel,), (initrd,) = assets.glob("kernels/*/vmlinux"), assets.glob("initrd/*.cpio")
        (disk,) = (path for path in server.data_dir.glob("drives/**/*") if _is_disk(path, vm))
        files = {"kernel": kernel, "initrd": initrd, "disk0": disk}
        (program,) = assets.glob("firecracker/*/firecracker")
        return cls(program, {name: value for name, value in config.items() if value}, files)

    def seconds_to_hello(self) -> float:
        with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
            directory = Path(scratch)
            (directory / LENT).mkdir()
            for name, path in self.files.items():
                (directory / LENT / name).symlink_to(path)
            (directory / "config.json").write_text(json.dumps(self.config))
            line = transports.AwaitedLine(directory / f"{VSOCK}_{AGENT_PORT}")
            argv = [str(self.program), "--no-api", "--config-file", "config.json"]
            began = time.monotonic()
            try:
                with _running(argv, directory, {}):
                    asyncio.run(hello(line))
                    return time.monotonic() - began
            finally:
                line.close()


def _root(vm_dir: Path) -> Path:
    return Premises.of(vm_dir, HostNetwork()).place.root


def _is_disk(path: Path, vm: dict[str, Any]) -> bool:
    return path.is_file() and vm["drives"][0]["id"] in str(path)


@contextmanager
def _running(argv: list[str], directory: Path, env: dict[str, str]) -> Iterator[None]:
    vmm = subprocess.Popen(
        argv, env=env, cwd=directory,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        vmm.kill()
        vmm.wait()


async def hello(line: AgentLine) -> None:
    """Returns once the agent has said hello on the line."""
    for _ in range(5000):
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.wait_for(line.connect(), TIMEOUT)
            connection = await AgentConnection.open(reader, writer, hello_timeout=TIMEOUT)
            return await connection.close()
        await asyncio.sleep(0.002)
    raise SystemExit("the bare VMM never listened")
