"""Programs over a websocket: input, signals, output, and who is sent away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from guest_agent.chunks import SIZE, Kind
from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import Stream
from nexus_site.core import auth
from nexus_site.core.consumers import FORBIDDEN
from nexus_site.core.errors import Retryable
from nexus_site.core.models import Token
from nexus_site.sockets import sockets
from tests.factories import make_vm
from tests.vms.fake_agents import PATIENCE, World, begin, end, say, take
from tests.websockets import WebSocket
from vms import stream_socket
from vms.gateway import SOCKET
from vms.models import VM
from vms.states import State

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def world(settings: Any) -> AsyncIterator[World]:
    path = Path(settings.NEXUS.run_dir) / SOCKET
    made = World(path)
    await made.gateway.open(path)
    yield made
    await made.close()


@pytest.fixture
async def vm(db: None) -> VM:
    return await sync_to_async(make_vm)(name="hello", state=State.READY)


@pytest.fixture
async def secret(db: None) -> str:
    return (await sync_to_async(auth.create_token)("ci", "operate"))[1]


class Socket:
    """A client of ``/ws/vms/hello/exec``."""

    def __init__(self, secret: str) -> None:
        headers = [(b"host", b"127.0.0.1:9600")]
        headers += [(b"authorization", f"Bearer {secret}".encode())] if secret else []
        self.raw = WebSocket(sockets, "/ws/vms/hello/exec", headers=headers)

    async def __aenter__(self) -> Socket:
        accepted, code = await self.raw.connect()
        assert accepted, code
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.raw.disconnect()

    async def tell(self, **message: Any) -> None:
        await self.raw.send_json_to(message)

    async def heard(self) -> Any:
        message = await self.raw.receive_output(timeout=PATIENCE)
        if message["type"] == "websocket.close":
            return message["code"]
        return message.get("bytes") or json.loads(message["text"])

    async def fails(self) -> tuple[str, int]:
        """The code of the problem, and of the close."""
        message = await self.heard()
        return message["problem"]["code"], await self.heard()


async def test_a_whole_run_over_a_socket(world: World, vm: VM, secret: str) -> None:
    async def program(stream: Stream) -> None:
        await begin(stream)
        assert await take(stream) == (Kind.STDIN, b"hello")
        await say(stream, Kind.WINDOW, (5).to_bytes(4))
        await say(stream, Kind.STDOUT, b"out")
        assert await take(stream) == (Kind.SIGNAL, b"\x02")
        assert await take(stream) == (Kind.STDIN, b"")
        await say(stream, Kind.STDERR, b"err")
        await end(stream, code=0)

    await world.add(vm, program)
    async with Socket(secret) as socket:
        await socket.tell(argv=["x"], stdin=True)
        assert await socket.heard() == {"type": "started", "pid": 77}
        await socket.raw.send_to(b"hello")
        said = [await socket.heard(), await socket.heard()]
        assert {"type": "window", "bytes": 5} in said
        assert b"\x01out" in said
        await socket.tell(type="signal", signal="INT")
        await asyncio.sleep(0.1)  # the two go by different ways
        await socket.tell(type="eof")
        assert await socket.heard() == b"\x02err"
        ended = await socket.heard()
        assert (ended["type"], ended["exit_code"], ended["signal"]) == ("exit", 0, None)
        assert await socket.heard() == 1000


async def test_a_terminal_and_its_sizes(world: World, vm: VM, secret: str) -> None:
    seen: list[Any] = []

    async def program(stream: Stream) -> None:
        seen.append(await read_header(stream))
        await stream.write(encode_header({"ok": True, "pid": 77, "tty": True}))
        seen.append(await take(stream))
        await end(stream, code=0)

    await world.add(vm, program)
    async with Socket(secret) as socket:
        await socket.tell(shell=True, tty={"rows": 30, "cols": 100, "term": "vt100"})
        assert await socket.heard() == {"type": "started", "pid": 77}
        await socket.tell(type="resize", rows=50, cols=200)
        assert (await socket.heard())["type"] == "exit"
    header, size = seen
    assert (header["shell"], header["argv"]) == (True, [])
    assert header["tty"] == {"rows": 30, "cols": 100, "term": "vt100"}
    assert size == (Kind.RESIZE, SIZE.pack(50, 200))


async def test_a_socket_that_closes_ends_the_program(world: World, vm: VM, secret: str) -> None:
    over = asyncio.Event()

    async def wait(stream: Stream) -> None:
        await begin(stream)
        try:
            await stream.read()
        except Retryable:
            over.set()

    await world.add(vm, wait)
    async with Socket(secret) as socket:
        await socket.tell(argv=["x"])
        await socket.heard()
    async with asyncio.timeout(PATIENCE):
        await over.wait()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"argv": []}, "bad-program"),
        ({"argv": ["x"], "shell": True}, "bad-program"),
        ({"argv": "x"}, "validation"),
        ({"argv": ["x"], "tty": True}, "validation"),
        ([], "bad-message"),
    ],
)
async def test_a_greeting_that_is_none(
    world: World, vm: VM, secret: str, message: Any, code: str
) -> None:
    async with Socket(secret) as socket:
        await socket.raw.send_json_to(message)
        assert await socket.fails() == (code, 4422)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "dance"}, "bad-message"),
        ({"type": "resize", "rows": 0, "cols": 80}, "validation"),
        ({"type": "signal", "signal": "NOPE"}, "bad-signal"),
        ({"type": "signal", "signal": 99}, "bad-signal"),
        (b"x" * (stream_socket.WINDOW + 1), "bad-message"),
    ],
    ids=["unknown", "size", "signal", "number", "too much input"],
)
async def test_a_message_that_is_none_ends_the_program(
    world: World, vm: VM, secret: str, message: Any, code: str
) -> None:
    async def wait(stream: Stream) -> None:
        await begin(stream)
        await asyncio.Event().wait()

    await world.add(vm, wait)
    async with Socket(secret) as socket:
        await socket.tell(argv=["x"], stdin=True)
        await socket.heard()
        if isinstance(message, bytes):
            await socket.raw.send_to(message)
        else:
            await socket.tell(**message)
        assert await socket.fails() == (code, 4422)


async def test_a_vm_that_is_not_there(secret: str) -> None:
    async with Socket(secret) as socket:
        await socket.tell(argv=["x"])
        assert await socket.fails() == ("vm-not-found", 4404)


@pytest.mark.parametrize(("scope", "code"), [("read", 4403), (None, 4401)])
async def test_who_may_not(vm: VM, scope: str | None, code: int) -> None:
    secret = (await sync_to_async(auth.create_token)("x", scope))[1] if scope else "nxt_wrong"
    async with Socket(secret) as socket:
        assert (await socket.fails())[1] == code


async def test_another_site_s_page_is_refused(vm: VM) -> None:
    socket = Socket("")
    assert await socket.raw.connect() == (False, FORBIDDEN)


async def test_a_revoked_token_ends_the_program(
    world: World, vm: VM, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_socket, "LOOK_AFTER", 0.05)

    async def wait(stream: Stream) -> None:
        await begin(stream)
        await asyncio.Event().wait()

    await world.add(vm, wait)
    async with Socket(secret) as socket:
        await socket.tell(argv=["x"])
        await socket.heard()
        await Token.objects.all().adelete()
        assert (await socket.fails())[1] == 4401
