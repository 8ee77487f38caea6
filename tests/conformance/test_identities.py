"""One drive copied: each guest gets an identity of its own, once, before its init runs.

The guest has this machine's ssh-keygen, the libraries that it needs, and two host keys of its own.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent.connection import AgentConnection
from guest_agent.exec import ExitStatus
from tests.conformance.guests import PATIENCE, copy_disk
from vms.hypervisors.base import Disk

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen"),
    # Agent and disk do all of it, whatever the VMM; ssh-keygen in the rig would take minutes.
    pytest.mark.parametrize("new_driver", ["qemu"], indirect=True, scope="session"),
]

INIT = "/sbin/test-init"
# What a distribution's init and its services would find.
INIT_SCRIPT = """\
#!/bin/sh
cp -r /etc/machine-id /etc/nexus /etc/ssh /seen/
touch /seen/all
exec sleep 1000000
"""
MACHINE_ID = "0123456789abcdef0123456789abcdef"
FACTS = "cat $D/machine-id $D/nexus/identity $D/ssh/*.pub"


@dataclass(frozen=True)
class Identity:
    said: str  # by the agent's hello
    machine_id: str
    record: str
    keys: tuple[str, ...]

    def differs_from(self, other: Identity) -> bool:
        mine = {self.machine_id, self.record, *self.keys}
        return len(mine) == 4 and not mine & {other.machine_id, other.record, *other.keys}


@pytest.fixture(scope="module")
def drive(boot: Boot, alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system that has been a guest's."""
    drive = tmp_path_factory.mktemp("drive") / "root"
    copy_disk(alpine, drive)
    vm = boot(disks=(Disk("root", drive),))
    vm.talk(furnish)
    vm.wait()
    return drive


async def furnish(agent: AgentConnection) -> None:
    for file, content in ssh_keygen_files().items():
        await put(agent, file, content)
    await put(agent, INIT, INIT_SCRIPT.encode())
    keygen = "ssh-keygen -q -N '' -t $type -f /etc/ssh/ssh_host_${type}_key"
    script = f"""
        echo {MACHINE_ID} >/etc/machine-id
        mkdir -p /seen /etc/nexus /etc/ssh
        for type in ed25519 ecdsa; do {keygen}; done
        echo aaaaaaaaaaaac >/etc/nexus/identity
    """
    await run(agent, script)
    await agent.shutdown("poweroff", PATIENCE)
    await agent.wait_closed()


def ssh_keygen_files() -> dict[str, bytes]:
    """The program, its libraries and its loader."""
    program = shutil.which("ssh-keygen")
    assert program
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files = [program, *re.findall(r"(/\S+) \(0x", listed)]
    return {file: Path(file).read_bytes() for file in files}


async def put(agent: AgentConnection, path: str, content: bytes) -> None:
    await run(agent, f"mkdir -p {Path(path).parent}; cat >{path}; chmod 755 {path}", content)


async def run(agent: AgentConnection, script: str, stdin: bytes | None = None) -> str:
    """What a shell script printed that went well."""
    output = bytearray()
    async with asyncio.timeout(PATIENCE):
        status = await agent.execute(
            ["sh", "-ec", script],
            on_output=lambda _, data: output.extend(data),
            stdin=stdin,
            merge=True,
        )
    assert status == ExitStatus(0, None), output.decode(errors="replace")
    return output.decode()


def life(boot: Boot, drive: Path, identity: str, *, init: str) -> Identity:
    """Boot a VM from the drive, and end it when it is who it is."""
    arguments = (f"nexus.init={init}", f"nexus.identity={identity}")
    vm: BareVM = boot(disks=(Disk("root", drive),), kernel_args=arguments)
    found: Identity = vm.talk(lambda agent: look(agent, identity, init))
    vm.wait()
    return found


async def look(agent: AgentConnection, identity: str, init: str) -> Identity:
    """What init saw; where there is none, what there is once the agent is through."""
    if init == "none":
        place, wait = "/etc", f"until grep -qx {identity} /etc/nexus/identity; do sleep .1; done"
    else:
        place, wait = "/seen", "until [ -e /seen/all ]; do sleep .1; done"
    machine_id, record, *keys = (await run(agent, f"{wait}; D={place}; {FACTS}")).splitlines()
    await agent.shutdown("poweroff", PATIENCE, grace=1)
    await agent.wait_closed()
    return Identity(agent.hello.identity, machine_id, record, tuple(key.split()[1] for key in keys))


def test_each_copy_becomes_somebody_once(boot: Boot, drive: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        copy_disk(drive, tmp_path / name)
    one = life(boot, tmp_path / "one", "aaaaaaaaaayds", init=INIT)
    two = life(boot, tmp_path / "two", "aebagbafaydqq", init="none")
    assert (one.said, two.said) == ("new", "new")
    assert (one.record, two.record) == ("aaaaaaaaaayds", "aebagbafaydqq")
    assert MACHINE_ID not in (one.machine_id, two.machine_id)
    assert one.differs_from(two)

    again = life(boot, tmp_path / "one", "aaaaaaaaaayds", init="none")
    assert again == Identity("kept", one.machine_id, one.record, one.keys)


def test_a_guest_that_nobody_names_stays_as_it_is(boot: Boot, drive: Path, tmp_path: Path) -> None:
    copy_disk(drive, tmp_path / "root")
    vm = boot(disks=(Disk("root", tmp_path / "root"),))

    async def facts(agent: AgentConnection) -> str:
        return agent.hello.identity + "\n" + await run(agent, f"D=/etc; {FACTS}")

    said, machine_id, record, *_ = vm.talk(facts).splitlines()
    assert (said, machine_id, record) == ("none", MACHINE_ID, "aaaaaaaaaaaac")
