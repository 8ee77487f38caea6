"""Real servers and real VMs. One server a session, one VM a module."""

from __future__ import annotations

from typing import Any

import pytest

from bench.server import Server


@pytest.fixture(scope="module")
def vm(server: Server, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A ready VM, shared by the tests of one module."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", name, "--memory", "256")
    found: dict[str, Any] = server.get(f"/v1/vms/{name}")
    return found
