"""Ports of VMs over a websocket; the agent is the real one, on this machine."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from nexus_site.core import auth
from nexus_site.core.consumers import FORBIDDEN
from nexus_site.core.models import Operation, Token
from nexus_site.sockets import sockets
from tests.api.real_agents import RealAgent, real_agent
from tests.factories import make_vm
from tests.guest_agent.conftest import eventually
from tests.vms.fake_agents import PATIENCE
from tests.websockets import WebSocket
from vms import stream_socket
from vms.models import VM
from vms.states import State

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]

MIB = 1 << 20


@pytest.fixture
async def vm(db: None) -> VM:
    return await sync_to_async(make_vm)(name="hello", state=State.READY)


@pytest.fixture
async def agent(vm: VM, settings: Any, tmp_path: Path) -> AsyncIterator[RealAgent]:
    async with real_agent(vm, Path(settings.NEXUS.run_dir), tmp_path) as made:
        yield made


@pytest.fixture
async def secret(db: None) -> str:
    return (await sync_to_async(auth.create_token)("ci", "operate"))[1]


class Program:
    """Listens on a port, and has one connection in the test's hands."""

    def __init__(self) -> None:
        self._came: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
        self._came = asyncio.get_running_loop().create_future()

    async def listen(self) -> None:
        def accept(*ends: Any) -> None:
            self._came.set_result(ends)

        self.server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port: int = self.server.sockets[0].getsockname()[1]

    async def met(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(PATIENCE):
            return await self._came

    async def close(self) -> None:
        self.server.close()
        if self._came.done():
            self._came.result()[1].transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    made = Program()
    await made.listen()
    yield made
    await made.close()


class Socket:
    """A client of ``/ws/vms/hello/ports/PORT``."""

    def __init__(self, secret: str, port: int) -> None:
        headers = [(b"host", b"127.0.0.1:9600")]
        headers += [(b"authorization", f"Bearer {secret}".encode())] if secret else []
        self.raw = WebSocket(sockets, f"/ws/vms/hello/ports/{port}", headers=headers)

    async def __aenter__(self) -> Socket:
        accepted, code = await self.raw.connect()
        assert accepted, code
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.raw.disconnect()

    async def heard(self) -> Any:
        """The next message but windows; bytes, an object, or the code of the close."""
        while True:
            message = await self.raw.receive_output(timeout=PATIENCE)
            if message["type"] == "websocket.close":
                return message["code"]
            said = message.get("bytes") or json.loads(message["text"])
            if isinstance(said, bytes) or said["type"] != "window":
                return said

    async def connected(self) -> None:
        assert await self.heard() == {"type": "connected"}

    async def eof(self) -> None:
        await self.raw.send_json_to({"type": "eof"})

    async def fails(self) -> tuple[str, int]:
        """The code of the problem, and of the close."""
        message = await self.heard()
        return message["problem"]["code"], await self.heard()


async def test_both_ends_say_all_and_part(agent: RealAgent, secret: str, program: Program) -> None:
    async with Socket(secret, program.port) as client:
        await client.connected()
        reader, writer = await program.met()
        await client.raw.send_to(b"to the program")
        await client.eof()
        assert await reader.read() == b"to the program"
        writer.write(b"and back")
        writer.write_eof()
        assert await client.heard() == b"and back"
        assert await client.heard() == {"type": "eof"}
        assert await client.heard() == 1000


async def test_what_a_slow_program_takes_late_arrives_after_its_own_end(
    agent: RealAgent, secret: str, program: Program
) -> None:
    """The socket is closed by then; what lies on the way must not be lost with it."""
    async with Socket(secret, program.port) as client:
        await client.connected()
        reader, writer = await program.met()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write_eof()
        assert await client.heard() == {"type": "eof"}
        for _ in range(4):
            await client.raw.send_to(b"x" * (stream_socket.WINDOW // 4))
        await client.eof()
        assert await client.heard() == 1000
    reader._transport.resume_reading()  # type: ignore[attr-defined]
    async with asyncio.timeout(PATIENCE):
        assert len(await reader.read()) == stream_socket.WINDOW


async def test_a_client_that_closes_resets_the_program_s_end(
    agent: RealAgent, secret: str, program: Program
) -> None:
    async with Socket(secret, program.port) as client:
        await client.connected()
        reader, _ = await program.met()
        await client.raw.send_to(b"half of i")
        assert await reader.readexactly(9) == b"half of i"
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_program_that_takes_no_more_is_told_after_what_it_said(
    agent: RealAgent, secret: str, program: Program
) -> None:
    async with Socket(secret, program.port) as client:
        await client.connected()
        _, writer = await program.met()
        writer.write(b"413 Too much")
        writer.close()
        await writer.wait_closed()
        assert await client.heard() == b"413 Too much"
        assert await client.heard() == {"type": "eof"}
        for _ in range(4):
            await client.raw.send_to(b"x" * 1000)
            await asyncio.sleep(0.1)
        assert await client.fails() == ("port-reset", 4503)


async def test_a_vm_is_in_use_until_the_program_has_said_all(
    agent: RealAgent, secret: str, program: Program
) -> None:
    gateway, ref = agent.world.gateway, agent.vm.ref
    async with Socket(secret, program.port) as client:
        await client.connected()
        _, writer = await program.met()
        await asyncio.sleep(0.1)
        assert gateway.quiet_seconds(ref) == 0.0
        writer.write_eof()
        assert await client.heard() == {"type": "eof"}
        assert 0 < gateway.quiet_seconds(ref) < PATIENCE, "what only lingers keeps nobody awake"
        assert not gateway._held


async def test_a_vm_that_stands_still_for_a_moment_is_waited_for(
    agent: RealAgent, vm: VM, secret: str, program: Program
) -> None:
    await VM.objects.filter(pk=vm.pk).aupdate(state=State.PAUSED)
    async with Socket(secret, program.port) as client:
        assert await client.raw.receive_nothing(timeout=0.3)
        await VM.objects.filter(pk=vm.pk).aupdate(state=State.READY)
        await client.connected()


async def test_a_vm_that_stands_still_for_too_long_is_to_be_tried_again(
    vm: VM, secret: str, settings: Any
) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"agent_ready_timeout": 0.1})
    await VM.objects.filter(pk=vm.pk).aupdate(state=State.PAUSED)
    async with Socket(secret, 80) as client:
        assert await client.fails() == ("vm-held", 4503)


async def test_a_vm_that_has_suspended_itself_wakes(
    agent: RealAgent, vm: VM, secret: str, program: Program
) -> None:
    rows = VM.objects.filter(pk=vm.pk)
    await rows.aupdate(state=State.SUSPENDED, saved_memory={"reason": "idle"})
    async with Socket(secret, program.port) as client:
        async with asyncio.timeout(PATIENCE):
            while not await Operation.objects.filter(kind="vm.start").aexists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await rows.aupdate(state=State.READY)
        await client.connected()


async def test_one_that_a_person_has_suspended_stays_so(
    agent: RealAgent, vm: VM, secret: str, program: Program
) -> None:
    rows = VM.objects.filter(pk=vm.pk)
    await rows.aupdate(state=State.SUSPENDED, saved_memory={"reason": "request"})
    async with Socket(secret, program.port) as client:
        assert await client.fails() == ("vm-suspended", 4409)


async def test_a_port_where_nobody_listens(agent: RealAgent, secret: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with Socket(secret, port) as client:
        problem = (await client.heard())["problem"]
        assert (problem["code"], problem["status"]) == ("port-refused", 409)
        assert "127.0.0.1, 0.0.0.0 or ::" in problem["hint"]
        assert await client.heard() == 4409


@pytest.mark.parametrize("port", [0, 65536, 10**30])
async def test_what_is_no_port(agent: RealAgent, secret: str, port: int) -> None:
    async with Socket(secret, port) as client:
        assert await client.fails() == ("bad-port", 4422)


@pytest.mark.parametrize(
    "message",
    [{"type": "signal", "signal": "INT"}, {}, [], b"x" * (stream_socket.WINDOW + 1)],
    ids=["unknown", "empty", "list", "too much input"],
)
async def test_a_message_that_is_none_ends_the_connection(
    agent: RealAgent, secret: str, program: Program, message: Any
) -> None:
    async with Socket(secret, program.port) as client:
        await client.connected()
        reader, _ = await program.met()
        if isinstance(message, bytes):
            await client.raw.send_to(message)
        else:
            await client.raw.send_json_to(message)
        assert await client.fails() == ("bad-message", 4422)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(ConnectionResetError):
                await reader.read()


async def test_a_vm_that_is_not_there(secret: str) -> None:
    async with Socket(secret, 80) as client:
        assert await client.fails() == ("vm-not-found", 4404)


@pytest.mark.parametrize(("scope", "code"), [("read", 4403), (None, 4401)])
async def test_who_may_not(vm: VM, scope: str | None, code: int) -> None:
    secret = (await sync_to_async(auth.create_token)("x", scope))[1] if scope else "nxt_wrong"
    async with Socket(secret, 80) as client:
        assert (await client.fails())[1] == code


async def test_another_site_s_page_is_refused(vm: VM) -> None:
    assert await Socket("", 80).raw.connect() == (False, FORBIDDEN)


async def test_a_revoked_token_ends_the_connection(
    agent: RealAgent, secret: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_socket, "LOOK_AFTER", 0.05)
    async with Socket(secret, program.port) as client:
        await client.connected()
        await Token.objects.all().adelete()
        assert (await client.fails())[1] == 4401
    await eventually(lambda: not agent.world.gateway._streams)
