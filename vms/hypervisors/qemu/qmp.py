"""QEMU's control socket (QMP), one short conversation at a time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from qemu.qmp import ConnectError, QMPClient, QMPError

from nexus_site.core.errors import Retryable
from vms.hypervisors.qemu.command import QMP_SOCKET

ANSWER_SECONDS = 15.0
CONNECT_ATTEMPTS = 3
T = TypeVar("T")
Conversation = Callable[[QMPClient], Awaitable[T]]
Command = str | tuple[str, Mapping[str, object]]  # with its arguments

# The library logs every lost connection as an error; we raise it instead.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)


def ask(vm_dir: Path, *commands: Command, timeout: float = ANSWER_SECONDS) -> list[object]:
    """Run commands in one conversation; their return values. Raises as `converse` does."""
    named = [(one, None) if isinstance(one, str) else one for one in commands]

    async def run(client: QMPClient) -> list[object]:
        return [await client.execute(name, arguments) for name, arguments in named]

    return converse(vm_dir, run, timeout)


def converse(vm_dir: Path, conversation: Conversation[T], timeout: float = ANSWER_SECONDS) -> T:
    """Connect, have this conversation, hang up; what it returns.

    Raises Retryable when QEMU cannot be reached, refuses a command, or takes over `timeout`
    seconds. QEMU talks to one client at a time: another one's conversation is waited for.
    """
    try:
        # Through the directory's descriptor the path is short: sockets allow 107 bytes.
        directory = os.open(vm_dir, os.O_PATH | os.O_DIRECTORY)
        try:
            address = f"/proc/self/fd/{directory}/{QMP_SOCKET}"
            return asyncio.run(asyncio.wait_for(_converse(address, conversation), timeout))
        finally:
            os.close(directory)
    except (QMPError, OSError, EOFError, TimeoutError) as error:
        raise Retryable(
            "QEMU does not answer on its control socket.",
            detail=f"{type(error).__name__}: {error}",
            code="qmp-no-answer",
        ) from error


def status(vm_dir: Path, timeout: float = ANSWER_SECONDS) -> str:
    """QEMU's run state: "running", "paused", "prelaunch", "shutdown"..."""
    (answer,) = ask(vm_dir, "query-status", timeout=timeout)
    return str(cast("dict[str, object]", answer)["status"])


async def _converse(address: str, conversation: Conversation[T]) -> T:
    client = await _connect(address)
    try:
        return await conversation(client)
    finally:
        await client.disconnect()


async def _connect(address: str) -> QMPClient:
    """The library gives up when an event comes just before the answer to its greeting."""
    for attempt in range(CONNECT_ATTEMPTS):
        client = QMPClient()
        try:
            await client.connect(address)
        except ConnectError as error:
            if isinstance(error.exc, OSError) or attempt == CONNECT_ATTEMPTS - 1:
                raise
        else:
            break
    return client
