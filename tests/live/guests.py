"""Programs run inside real VMs of a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from bench.server import Server
from guest_agent import transports
from guest_agent.connection import AgentConnection
from tests.servers import PATIENCE, wait_for_state
from vms.hypervisors.base import AgentSocket
from vms.hypervisors.firecracker import Firecracker
from vms.hypervisors.qemu import Qemu

P = ParamSpec("P")
T = TypeVar("T")


def apart(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what runs an event loop; a browser's test may have left one in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call, *args, **kwargs).result()


class Guest:
    """Runs programs in a VM, whose server must be down: an agent talks to one host at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def sh(self, script: str) -> str:
        """What a shell script prints; it must succeed."""
        return apart(self._run_alone, script)

    def _run_alone(self, script: str) -> str:
        return asyncio.run(asyncio.wait_for(self._run(script), PATIENCE))

    async def _run(self, script: str) -> str:
        socket = agent_socket(self.directory)
        line = transports.open_line(socket.path, guest_dials=socket.guest_dials, uid=socket.uid)
        reader, writer = await line.connect()
        agent = await AgentConnection.open(reader, writer, hello_timeout=PATIENCE)
        said = bytearray()
        try:
            ended = await agent.execute(
                ["/bin/sh", "-ec", script], on_output=lambda _, data: said.extend(data), merge=True
            )
        finally:
            await agent.close()
            line.close()
        assert ended.shell_code == 0, said.decode(errors="replace")
        return said.decode().strip()


def agent_socket(vm_dir: Path) -> AgentSocket:
    """Where the agent of the VM that runs in this directory is reached, whatever runs it."""
    if (vm_dir / "agent.sock").exists():
        return Qemu(vm_dir).agent_socket(vm_dir)
    return Firecracker(vm_dir, lambda: None).agent_socket(vm_dir)


@contextmanager
def inside(server: Server, vm: dict[str, Any]) -> Iterator[Guest]:
    """The guest of a VM, while Nexus is down; the VM is ready again after."""
    server.stop()
    try:
        yield Guest(server.data_dir / "vms" / vm["id"])
    finally:
        server.start()
    wait_for_state(server, vm["id"], "ready")
