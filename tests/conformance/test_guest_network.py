"""The network that a guest sees is the same under every VMM."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration, Network
from tests.conformance.guests import copy_disk, run
from tests.vms.hypervisors import networks
from tests.vms.hypervisors.networks import INTERNET, WAN, World
from vms.hypervisors.base import Disk
from vms.hypervisors.firecracker.netns import find_program

if TYPE_CHECKING:
    from tests.conformance.conftest import Boot, Remains

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        os.geteuid() != 0 or not find_program("nft"), reason="the test's networks need root"
    ),
]

PORT = 7000


@pytest.fixture
def world() -> Iterator[World]:
    with networks.world() as made:
        yield made


def test_a_guest_reaches_the_internet_and_leaves_nothing(
    world: World, boot: Boot, alpine: Path, tmp_path: Path, remains: Remains
) -> None:
    world.serve(world.internet, str(INTERNET), PORT)
    copy_disk(alpine, tmp_path / "root.ext4")
    vm = world.host.run(boot, disks=(Disk("root", tmp_path / "root.ext4"),))
    try:
        said = vm.talk(call_out)
        assert f"default via {Network().gateway}" in said
        assert said.endswith(str(WAN))
    finally:
        vm.driver.kill(vm.handle)
        world.host.run(vm.driver.cleanup, vm.vm_dir)
    assert remains(vm.spec) == []


async def call_out(agent: AgentConnection) -> str:
    await agent.configure(Configuration(network=Network()), timeout=60)
    return await run(agent, f"ip route; nc {INTERNET} {PORT} </dev/null")
