"""QEMU's control socket (QMP), one short conversation at a time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from qemu.qmp import ConnectError, QMPClient, QMPError

from nexus_site.core.errors import Retryable
from vms.hypervisors.qemu.command import QMP_SOCKET

ANSWER_SECONDS = 15.0
GREETING_SECONDS = 60.0  # a QEMU that has just been started listens before it answers
POLL_SECONDS = 0.002
NOBODY = "qmp-nobody"  # the code of a Retryable: nobody listens, or not yet
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

    Raises Retryable when QEMU cannot be reached (code `NOBODY` where nobody listens), refuses a
    command, or takes over `timeout` seconds for the conversation. QEMU talks to one client at a
    time: another one's conversation is waited for.
    """
    try:
        # Through the directory's descriptor the path is short: sockets allow 107 bytes.
        directory = os.open(vm_dir, os.O_PATH | os.O_DIRECTORY)
        try:
            address = f"/proc/self/fd/{directory}/{QMP_SOCKET}"
            return asyncio.run(_converse(address, conversation, timeout))
        finally:
            os.close(directory)
    except (QMPError, OSError, EOFError, TimeoutError) as error:
        raise Retryable(
            "QEMU does not answer on its control socket.",
            detail=f"{type(error).__name__}: {error}",
            code=NOBODY if _nobody_listens(error) else "qmp-no-answer",
        ) from error


def wait_for_status(vm_dir: Path, status: str, timeout: float) -> None:
    """Return when this is QEMU's run state. Raises as `converse` does."""

    async def conversation(client: QMPClient) -> None:
        await until(client, "query-status", lambda now: now["status"] == status)

    converse(vm_dir, conversation, timeout)


def status(vm_dir: Path, timeout: float = ANSWER_SECONDS) -> str:
    """QEMU's run state: "running", "paused", "prelaunch", "shutdown"..."""
    (answer,) = ask(vm_dir, "query-status", timeout=timeout)
    return str(cast("dict[str, object]", answer)["status"])


async def until(
    client: QMPClient, query: str, over: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The first answer to `query` that says that it is `over`."""
    while True:
        answer = cast("dict[str, Any]", await client.execute(query))
        if over(answer):
            return answer
        await asyncio.sleep(POLL_SECONDS)


def _nobody_listens(error: Exception) -> bool:
    absent = (FileNotFoundError, ConnectionRefusedError)
    return isinstance(error, ConnectError) and isinstance(error.exc, absent)


async def _converse(address: str, conversation: Conversation[T], seconds: float) -> T:
    client = await asyncio.wait_for(_connect(address), GREETING_SECONDS)
    try:
        return await asyncio.wait_for(conversation(client), seconds)
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
