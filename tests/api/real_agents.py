"""VMs whose agent is the real one, on this machine, behind a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from guest_agent.binary import agent_path
from guest_agent.connection import AgentConnection
from tests.guest_agent.conftest import AgentProcess, Port
from tests.vms.fake_agents import PATIENCE, World
from vms.gateway import SOCKET
from vms.models import VM


class RealAgent:
    """The agent of one VM, in a sandbox of its own."""

    def __init__(self, world: World, vm: VM, process: AgentProcess, port: Port) -> None:
        self.world, self.vm, self.process, self.port = world, vm, process, port

    async def connect(self) -> None:
        """Become its host, as the worker does when it starts."""
        ends = await self.port.attach()
        agent = await AgentConnection.open(*ends, hello_timeout=PATIENCE)
        self.world.agents[self.vm.ref] = agent

    async def disconnect(self) -> None:
        """Leave it, as the worker does when it ends."""
        await self.world.agents.pop(self.vm.ref).close()


@asynccontextmanager
async def real_agent(vm: VM, run_dir: Path, sandbox: Path) -> AsyncIterator[RealAgent]:
    """``vm`` with the built agent, which other processes reach by ``run_dir``."""
    world = World(run_dir / SOCKET)
    await world.gateway.open(world.path)
    process = AgentProcess(agent_path(), sandbox)
    process.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    port = Port(process.socket)
    await port.start()
    process.start()
    agent = RealAgent(world, vm, process, port)
    try:
        await agent.connect()
        yield agent
    finally:
        await world.close()
        process.stop()
        await port.stop()
