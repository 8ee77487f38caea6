"""A guest's state out of QEMU and into it: what QEMU calls migration, with a file between.

QEMU gets the open file over its control socket: its sandbox starts no programs, and it need not
be allowed to open anything. With `shared_memory` the state is without the guest's memory, where
that is a file that QEMU shares; on the way in it is wherever QEMU has it already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient

from nexus_site.core.errors import Broken, Retryable
from vms.hypervisors.qemu import qmp

SAVE_SECONDS = LOAD_SECONDS = 1800.0  # for the memory of the largest VM on a slow disk
FILE = "state"
NO_LIMIT = 1 << 40  # bytes per second


def save(vm_dir: Path, fd: int, *, shared_memory: bool) -> None:
    """Write the state of a paused guest to `fd`. Broken where QEMU could not, in its words."""

    async def conversation(client: QMPClient) -> dict[str, Any]:
        await _prepare(client, fd, shared_memory)
        await client.execute("migrate-set-parameters", {"max-bandwidth": NO_LIMIT})
        await client.execute("migrate", {"uri": f"fd:{FILE}"})
        over = {"completed", "failed", "cancelled"}
        return await qmp.until(client, "query-migrate", lambda now: now.get("status") in over)

    try:
        ended = qmp.converse(vm_dir, conversation, SAVE_SECONDS)
    except Retryable as error:
        raise _failed(error.detail) from error
    if ended["status"] != "completed":
        raise _failed(str(ended.get("error-desc", "")))


def load(vm_dir: Path, fd: int, *, shared_memory: bool) -> None:
    """Give a QEMU that waits for it the state in `fd`, and let the guest go on.

    The guest does not announce itself to its network, which is its own and new: that would keep it
    busy when it has other things to do. QEMU ends when it cannot load the state; that is Retryable
    here, as any QEMU that does not answer.
    """

    async def conversation(client: QMPClient) -> None:
        await qmp.until(client, "query-status", lambda now: now["status"] == "inmigrate")
        await _prepare(client, fd, shared_memory)
        await client.execute("migrate-set-parameters", {"announce-rounds": 0})
        await client.execute("migrate-incoming", {"uri": f"fd:{FILE}"})
        await qmp.until(client, "query-status", lambda now: now["status"] != "inmigrate")
        await client.execute("cont")

    qmp.converse(vm_dir, conversation, LOAD_SECONDS)


def _failed(detail: str) -> Broken:
    return Broken("QEMU could not save the guest's state.", detail=detail, code="snapshot-failed")


async def _prepare(client: QMPClient, fd: int, shared_memory: bool) -> None:
    wanted = {"capability": "x-ignore-shared", "state": shared_memory}
    await client.execute("migrate-set-capabilities", {"capabilities": [wanted]})
    client.send_fd_scm(fd)
    await client.execute("getfd", {"fdname": FILE})
