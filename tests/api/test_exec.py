"""Programs by the API: buffered, as events, over a websocket; the agent is a fake one."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError
from django.test import AsyncClient

from guest_agent.chunks import Kind
from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import Stream
from nexus_site.core import auth, events
from nexus_site.core.errors import Retryable
from nexus_site.core.models import Event, Token
from tests.factories import make_vm
from tests.vms.fake_agents import PATIENCE, World, begin, end, say, take
from vms import program_streams
from vms.gateway import SOCKET
from vms.models import VM
from vms.states import State

pytestmark = pytest.mark.django_db(transaction=True)

Post = Callable[..., Awaitable[Any]]


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


@pytest.fixture
def post(secret: str) -> Post:
    async def ask(data: dict[str, Any], accept: str = "*/*", ref: str = "hello") -> Any:
        async with asyncio.timeout(PATIENCE):
            return await AsyncClient(raise_request_exception=False).post(
                f"/v1/vms/{ref}/exec",
                data,
                content_type="application/json",
                headers={"Authorization": f"Bearer {secret}", "Accept": accept},
            )

    return ask


async def talkative(stream: Stream) -> None:
    await begin(stream)
    await say(stream, Kind.STDOUT, b"one \xc3")
    await say(stream, Kind.STDERR, b"\xff!")
    await say(stream, Kind.STDOUT, b"\xa4 two")
    await end(stream, code=3)


# Buffered


async def test_an_answer_at_the_end(world: World, vm: VM, post: Post) -> None:
    await world.add(vm, talkative)
    response = await post({"argv": ["x"]})
    assert response.status_code == 200
    assert response.json() | {"seconds": 0} == {
        "exit_code": 3,
        "signal": None,
        "timed_out": False,
        "seconds": 0,
        "stdout": "one ä two",
        "stderr": "\ufffd!",
        "stdout_truncated": False,
        "stderr_truncated": False,
    }


async def test_everything_asked_for_reaches_the_agent(world: World, vm: VM, post: Post) -> None:
    seen: list[Any] = []

    async def note(stream: Stream) -> None:
        seen.append(await begin(stream))
        while (chunk := await take(stream))[1]:
            seen.append(chunk)
        await end(stream, signal=9)

    await world.add(vm, note)
    wanted = {
        "argv": ["sh", "-c", "x"],
        "env": {"SECRET": "otter"},
        "cwd": "/tmp",
        "user": "nobody",
        "timeout": 5,
        "merge": True,
    }
    stdin = base64.b64encode(b"\0\xff").decode()
    response = await post(wanted | {"stdin": stdin, "stdin_encoding": "base64"})
    assert (response.json()["exit_code"], response.json()["signal"]) == (None, 9)
    header, given = seen
    assert header == header | wanted | {"op": "exec", "stdin": True}
    assert given == (Kind.STDIN, b"\0\xff")


async def test_history_says_who_ran_what_and_no_secret(world: World, vm: VM, post: Post) -> None:
    await world.add(vm, talkative)
    await post({"argv": ["p" * 300, "otter"], "env": {"A": "otter"}, "stdin": "otter"})
    event = await Event.objects.aget(kind="vm.exec")
    assert (event.actor, event.subject_id) == ("token:ci", vm.id)
    assert event.data == {"program": "p" * 99 + "…"}


async def test_what_cannot_be_written_into_history_is_ended(
    world: World, vm: VM, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), asyncio.Event()

    async def endless(stream: Stream) -> None:
        await begin(stream)
        begun.set()
        with pytest.raises(Retryable):
            await stream.read()
        ended.set()

    def full(*_: Any, **__: Any) -> None:
        assert begun.wait(PATIENCE)
        raise OperationalError("database or disk is full")

    await world.add(vm, endless)
    monkeypatch.setattr(events, "append", full)
    assert (await post({"argv": ["x"]})).status_code >= 500
    async with asyncio.timeout(PATIENCE):
        await ended.wait()


async def test_more_output_than_an_answer_holds_is_cut(
    world: World, vm: VM, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_streams, "MAX_OUTPUT", 10)

    async def much(stream: Stream) -> None:
        await begin(stream)
        for _ in range(100):
            await say(stream, Kind.STDOUT, b"123456")
        await say(stream, Kind.STDERR, b"1234567890")
        await end(stream, code=0)

    await world.add(vm, much)
    answer = (await post({"argv": ["x"], "output": "base64"})).json()
    assert base64.b64decode(answer["stdout"]) == b"1234561234"
    assert (answer["stdout_truncated"], answer["stderr_truncated"]) == (True, False)


async def refuse(stream: Stream) -> None:
    await read_header(stream)
    await stream.write(encode_header({"error": {"code": "cannot-run", "text": "no such program"}}))
    stream.write_eof()


async def vanish(stream: Stream) -> None:
    await begin(stream)
    stream.reset()


async def lie(stream: Stream) -> None:
    await begin(stream)
    await stream.write(b"\x09\0\0\0\x01x")


@pytest.mark.parametrize(
    ("agent", "status", "code"),
    [
        (refuse, 422, "cannot-run"),
        (vanish, 503, "agent-reset"),
        (lie, 500, "agent-protocol"),
    ],
)
async def test_what_goes_wrong_is_a_problem(
    world: World, vm: VM, post: Post, agent: Any, status: int, code: str
) -> None:
    await world.add(vm, agent)
    response = await post({"argv": ["x"]})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        (State.STOPPED, 409, "vm-not-ready"),
        (State.PAUSED, 503, "vm-held"),
        (State.RUNNING, 503, "vm-not-ready"),
        (State.UNREACHABLE, 503, "vm-not-ready"),
    ],
)
async def test_a_vm_that_is_not_ready(
    world: World, vm: VM, post: Post, settings: Any, state: State, status: int, code: str
) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"agent_ready_timeout": 0.1})
    await VM.objects.filter(pk=vm.pk).aupdate(state=state)
    response = await post({"argv": ["x"]})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert not await Event.objects.filter(kind="vm.exec").aexists()


async def test_a_worker_that_is_down(vm: VM, post: Post) -> None:
    response = await post({"argv": ["x"]})
    assert (response.status_code, response.json()["code"]) == (503, "worker-down")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"argv": []},
        {"argv": [""]},
        {"argv": ["a\0b"]},
        {"argv": ["x"], "cwd": "relative"},
        {"argv": ["x"], "env": {"A=B": "x"}},
        {"argv": ["x"], "timeout": 0},
        {"argv": ["x"], "stdin": "%", "stdin_encoding": "base64"},
        {"argv": ["x"], "shell": True},
        {"argv": ["x" * 60_000, "y" * 60_000]},
    ],
)
async def test_what_no_program_can_be(world: World, vm: VM, post: Post, body: Any) -> None:
    response = await post(body)
    assert response.status_code == 422, response.content


# Events


async def read_events(response: Any) -> list[tuple[str, str, dict[str, Any]]]:
    text = "".join([piece.decode() async for piece in response.streaming_content])
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        if fields:
            found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return found


async def test_output_as_events(world: World, vm: VM, post: Post) -> None:
    await world.add(vm, talkative)
    events = await read_events(await post({"argv": ["x"]}, "text/event-stream"))
    assert events[:-1] == [
        ("started", "", {"pid": 77}),
        ("stdout", "5", {"text": "one "}),
        ("stderr", "7", {"text": "\ufffd!"}),
        ("stdout", "12", {"text": "ä two"}),
    ]
    assert events[-1][0] == "exit"
    assert events[-1][2]["exit_code"] == 3


async def test_a_stream_that_breaks_ends_in_an_error(world: World, vm: VM, post: Post) -> None:
    await world.add(vm, vanish)
    events = await read_events(await post({"argv": ["x"]}, "text/event-stream"))
    assert events[-1][0] == "error"
    assert events[-1][2]["code"] == "agent-reset"


async def test_a_stream_that_cannot_begin_is_a_problem(world: World, vm: VM, post: Post) -> None:
    await world.add(vm, refuse)
    response = await post({"argv": ["x"]}, "text/event-stream")
    assert response.status_code == 422


async def test_silence_is_filled_and_a_revoked_token_ends_it(
    world: World, vm: VM, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_streams, "KEEP_ALIVE", 0.05)
    over = asyncio.Event()

    async def silent(stream: Stream) -> None:
        await begin(stream)
        try:
            await stream.read()
        except Retryable:
            over.set()

    await world.add(vm, silent)
    response = await post({"argv": ["x"]}, "text/event-stream")
    pieces = aiter(response.streaming_content)
    async with asyncio.timeout(PATIENCE):
        assert (await anext(pieces)).startswith(b"event: started")
        assert await anext(pieces) == b": alive\n\n"
        await Token.objects.all().adelete()
        (last,) = [piece async for piece in pieces if piece != b": alive\n\n"]
        assert last.startswith(b"event: error\ndata: ")
        assert b'"status": 401' in last
        await over.wait()
