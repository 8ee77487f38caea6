"""Sessions of guests that lie: every answer comes in bounded time, whatever they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from guest_agent.chunks import Kind
from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import Stream
from nexus_site.core import auth
from tests.factories import make_vm
from tests.vms.fake_agents import PATIENCE, World, say
from vms import sessions_api
from vms.gateway import SOCKET
from vms.models import VM
from vms.services import sessions as rules
from vms.states import State

pytestmark = pytest.mark.django_db(transaction=True)

SESSION = {
    "id": "job",
    "argv": ["<script>\u202e"],
    "pid": 7,
    "user": "",
    "cwd": "/",
    "tty": False,
    "stdin": True,
    "started": 2.0**40,
    "keep": 4096,
    "first": 0,
    "size": 2**62,
    "attached": 0,
}
Answers = dict[str, Callable[[Stream], Awaitable[None]]]


@pytest.fixture
async def vm(db: None) -> VM:
    return await sync_to_async(make_vm)(name="hello", state=State.READY)


@pytest.fixture
async def world(settings: Any) -> AsyncIterator[World]:
    made = World(Path(settings.NEXUS.run_dir) / SOCKET)
    await made.gateway.open(made.path)
    yield made
    await made.close()


async def lying(world: World, vm: VM, **answers: Callable[[Stream], Awaitable[None]]) -> None:
    """An agent that has one session of endless output, and says what ``answers`` do."""

    async def listed(stream: Stream) -> None:
        await stream.write(encode_header({"ok": True}) + encode_header(SESSION))
        stream.write_eof()

    async def on_stream(stream: Stream) -> None:
        header = await read_header(stream)
        await ({"sessions": listed} | answers)[header["op"]](stream)

    await world.add(vm, on_stream)


async def attached(stream: Stream) -> None:
    reply = {"ok": True, "pid": 7, "offset": 0, "tty": False, "stdin": True}
    await stream.write(encode_header(reply))


async def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
    secret = (await sync_to_async(auth.create_token)("ci", "operate"))[1]
    given = {} if body is None else {"data": body, "content_type": "application/json"}
    async with asyncio.timeout(PATIENCE):
        response = await getattr(AsyncClient(raise_request_exception=False), method)(
            f"/v1/vms/hello/sessions{path}", headers={"Authorization": f"Bearer {secret}"}, **given
        )
    return response.status_code, response.json()


async def test_times_that_cannot_be(world: World, vm: VM) -> None:
    await lying(world, vm)
    status, (session,) = await ask("get", "")
    assert status == 200
    assert session["started_at"].startswith("9999-12-31")
    assert "\u202e" not in session["argv"][0]


async def test_a_name_that_is_always_taken(world: World, vm: VM) -> None:
    async def existing(stream: Stream) -> None:
        await stream.write(encode_header({"ok": True, "pid": 7, "existing": True}))
        stream.write_eof()

    await lying(world, vm, start=existing)
    status, problem = await ask("post", "", {"argv": ["x"]})
    assert (status, problem["code"]) == (503, "session-name")


async def test_output_that_never_comes(
    world: World, vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_api, "OUTPUT_PATIENCE", 0.3)

    async def silent(stream: Stream) -> None:
        await attached(stream)
        await asyncio.Event().wait()

    await lying(world, vm, attach=silent)
    status, problem = await ask("get", "/job/output")
    assert (status, problem["code"]) == (503, "agent-timeout")


async def test_gaps_without_end(world: World, vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_api, "OUTPUT_PATIENCE", 0.3)

    async def skips(stream: Stream) -> None:
        await attached(stream)
        for offset in range(1, 1 << 30):
            await say(stream, Kind.GAP, offset.to_bytes(8))

    await lying(world, vm, attach=skips)
    status, problem = await ask("get", "/job/output")
    assert (status, problem["code"]) == (503, "agent-timeout")


async def test_an_answer_of_a_flood_is_bounded(world: World, vm: VM) -> None:
    async def flood(stream: Stream) -> None:
        await attached(stream)
        while True:
            await say(stream, Kind.STDERR, b"\xff" * 65536)

    await lying(world, vm, attach=flood)
    status, answer = await ask("get", "/job/output")
    assert status == 200
    assert 1 << 20 <= len(answer["stderr"]) < (1 << 20) + 65536
    assert answer["next_offset"] == len(answer["stderr"])


async def test_input_and_an_end_that_never_come(
    world: World, vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "INPUT_PATIENCE", 0.3)
    monkeypatch.setattr(rules, "END_PATIENCE", 0.3)

    async def deaf(stream: Stream) -> None:
        await attached(stream)
        await asyncio.Event().wait()

    async def signalled(stream: Stream) -> None:
        await stream.write(encode_header({"ok": True}))
        stream.write_eof()

    await lying(world, vm, attach=deaf, signal=signalled)
    status, problem = await ask("post", "/job/input", {"data": "x"})
    assert (status, problem["code"]) == (409, "input-waits")
    status, problem = await ask("delete", "/job?force=1")
    assert (status, problem["code"]) == (503, "session-runs")
