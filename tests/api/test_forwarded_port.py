"""A program's port all the way: ``nexusctl vm forward``, the web server, the gateway, the agent."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from nexus_site import web
from nexus_site.asgi import application
from nexus_site.core import auth
from tests.api.real_agents import real_agent
from tests.factories import make_vm
from tests.vms.fake_agents import PATIENCE
from vms.states import State

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1 << 20


@pytest.fixture
async def env(settings: Any, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """A server with the VM “hello”, as ``nexusctl`` finds it."""
    vm = await sync_to_async(make_vm)(name="hello", state=State.READY)
    secret = (await sync_to_async(auth.create_token)("ci", "operate"))[1]
    server, listener = web.server(application), web.listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],))
    async with real_agent(vm, Path(settings.NEXUS.run_dir), tmp_path):
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield {**os.environ, "NEXUS_URL": url, "NEXUS_TOKEN": secret}
        server.should_exit = True
        await asyncio.to_thread(thread.join)


@asynccontextmanager
async def forwarded(env: dict[str, str], port: int) -> AsyncIterator[tuple[Process, int]]:
    """The command, and the port of this machine that leads to ``port``."""
    command = [sys.executable, "-m", "nexusctl", "vm", "forward", "hello", f"0:{port}"]
    process = await asyncio.create_subprocess_exec(*command, env=env, stdout=PIPE, stderr=PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
            yield process, int(line.partition(" → ")[0].rpartition(":")[2])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def interrupt(process: Process) -> str:
    """Ctrl-C, which is no error; what it had said on stderr."""
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 0
    return err.decode()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A slow program that says all again when it has heard all."""
    said = bytearray()
    while data := await reader.read(MIB // 4):
        said += data
        await asyncio.sleep(0.01)
    writer.write(said)
    writer.close()


async def talk(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_connections_side_by_side_arrive_whole(env: dict[str, str]) -> None:
    texts = [random.Random(seed).randbytes(seed * MIB + 7) for seed in range(4)]
    program = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with forwarded(env, program.sockets[0].getsockname()[1]) as (process, port):
        assert await asyncio.gather(*(talk(port, text) for text in texts)) == texts
        assert await interrupt(process) == "Ctrl-C ends it.\n\n"
    program.close()


async def test_a_port_where_nobody_listens_refuses_and_says_so(env: dict[str, str]) -> None:
    gone = await asyncio.start_server(echo, "127.0.0.1", 0)
    number = gone.sockets[0].getsockname()[1]
    gone.close()
    await gone.wait_closed()
    async with forwarded(env, number) as (process, port):
        with pytest.raises(ConnectionResetError):
            await talk(port, b"x")
        assert f"Nothing in the VM takes connections on port {number}." in await interrupt(process)


async def test_a_program_that_ends_lets_its_client_end(env: dict[str, str]) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello")
        writer.close()

    program = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with forwarded(env, program.sockets[0].getsockname()[1]) as (process, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b"220 hello"
        writer.close()
        await writer.wait_closed()
        await interrupt(process)
    program.close()
