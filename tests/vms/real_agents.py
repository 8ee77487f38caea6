"""The real agent, in a directory of this machine in place of a guest, behind a real gateway.

Both live in a thread of their own: tests of pages and of the API reach them as web processes do.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from guest_agent.binary import agent_path
from guest_agent.connection import AgentConnection
from tests.guest_agent.conftest import AgentProcess, Port
from tests.vms.fake_agents import PATIENCE, OnStream, World
from vms.models import VM


class Agents:
    """A gateway in a thread. ``run`` carries something out there."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._closers: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    def real(self, vm: VM, directory: Path) -> Path:
        """The VM has the real agent; returns the directory that is its guest's root."""
        process = AgentProcess(agent_path(), directory)
        process.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\notter:x:1234:1234::/:/bin/sh\n")
        self.run(self._add_real(vm, process))
        return process.sandbox

    def fake(self, vm: VM, on_stream: OnStream) -> None:
        """The VM has an agent that does as ``on_stream`` says."""
        self.run(self._world.add(vm, on_stream))

    async def _add_real(self, vm: VM, process: AgentProcess) -> None:
        port = Port(process.socket)
        await port.start()
        self._closers.append(port.stop)
        process.start()

        async def stop() -> None:
            process.stop()

        self._closers.append(stop)
        ends = await port.attach()
        opened = await AgentConnection.open(*ends, hello_timeout=PATIENCE)
        self._world.agents[vm.ref] = opened

    async def _open(self) -> None:
        self._world = World(self._socket)
        await self._world.gateway.open(self._socket)

    async def _close(self) -> None:
        await self._world.close()
        for close in reversed(self._closers):
            await close()

    def __enter__(self) -> Agents:
        self._thread.start()
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()
