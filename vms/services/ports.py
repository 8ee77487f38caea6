"""Ports of VMs that people and agents connect to."""

from __future__ import annotations

from guest_agent import ports
from guest_agent.ports import Connection
from vms.agents import GatewayAgent
from vms.models import VM


async def connect_to_port(vm: VM, port: int) -> Connection:
    """A TCP connection to a program of a VM that is ready; ``close`` what this returns. See
    ``guest_agent.ports.connect``. History says nothing of it: a page alone makes dozens."""
    return await ports.connect(GatewayAgent(vm), port)
