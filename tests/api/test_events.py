"""The event log: as pages, and as a stream that misses nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest
from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from django.test import AsyncClient

from nexus_site.core import api, auth, consumers, events
from nexus_site.core.models import Token
from tests.factories import make_vm


def test_pages_go_forward(world, reader):
    whole = reader.send("GET", "/events?after=0").json()
    assert [e["seq"] for e in whole["items"]] == sorted(e["seq"] for e in whole["items"])
    assert whole["next_after"] == whole["last_seq"] == events.last_seq()
    first = reader.send("GET", "/events?after=0&limit=1").json()
    assert first["items"] == whole["items"][:1]
    rest = reader.send("GET", f"/events?after={first['next_after']}").json()
    assert rest["items"] == whole["items"][1:]
    end = reader.send("GET", f"/events?after={rest['next_after']}").json()
    assert (end["items"], end["next_after"]) == ([], rest["next_after"])


def test_without_a_number_the_newest_are_shown(world, reader):
    for _ in range(5):
        make_vm()
    newest = reader.send("GET", "/events?limit=3").json()
    last = events.last_seq()
    assert [e["seq"] for e in newest["items"]] == [last - 2, last - 1, last]


def test_an_event(world, reader):
    event = reader.send("GET", "/events?limit=500").json()["items"][-1]
    created = [e for e in [event] if e["kind"] == "token.created"]
    assert created, "the reader's own token came last"
    assert event["subject"]["kind"] == "token"
    assert event["actor"] == "system"
    assert event["data"] == {"scope": "read"}
    assert event["operation_id"] is None


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=501"])
def test_bad_numbers(query, world, reader):
    assert reader.send("GET", f"/events?{query}").status_code == 422


async def stream(query: str = "", **headers: str) -> StreamingHttpResponse:
    """The answer to a reader that asks for the stream."""
    _, secret = await sync_to_async(auth.create_token)("reader", "read")
    headers["Authorization"] = f"Bearer {secret}"
    return await AsyncClient().get(f"/v1/events/stream{query}", headers=headers)


async def messages(response, count: int) -> list[str]:
    """The first messages of a stream."""
    found: list[str] = []
    async with asyncio.timeout(60), aclosing(aiter(response.streaming_content)) as chunks:
        async for chunk in chunks:
            found.append(chunk.decode())
            if len(found) == count:
                return found
    raise AssertionError("the stream ended")


@pytest.mark.django_db(transaction=True)
async def test_the_stream_starts_where_asked_and_goes_on():
    for name in ("one", "two"):
        await sync_to_async(make_vm)(name=name, root=False)
    start = await sync_to_async(events.last_seq)() - 1
    response = await stream(f"?after={start}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Cache-Control"] == "no-cache"
    connected, first = await messages(response, 2)
    assert connected.startswith(":")
    number, data, *_ = first.split("\n")
    event = json.loads(data.removeprefix("data: "))
    assert number == f"id: {event['seq']}" == f"id: {start + 1}"
    assert (event["kind"], event["subject"]["name"]) == ("vm.created", "two")


@pytest.mark.django_db(transaction=True)
async def test_a_client_that_comes_back_is_heard():
    await sync_to_async(make_vm)(root=False)
    last = await sync_to_async(events.last_seq)()
    response = await stream("?after=0", **{"Last-Event-ID": str(last - 1)})
    _, first = await messages(response, 2)
    assert first.startswith(f"id: {last}\n")


@pytest.mark.django_db(transaction=True)
async def test_new_events_come_and_silence_is_broken(monkeypatch):
    monkeypatch.setattr(consumers, "LOOK_INTERVAL", 0.01)
    monkeypatch.setattr(api, "HEARTBEAT_INTERVAL", 0.03)
    response = await stream()
    chunks = aiter(response.streaming_content)
    async with asyncio.timeout(60), aclosing(chunks):
        assert await anext(chunks) == b": connected\n\n"
        assert await anext(chunks) == b": alive\n\n"
        await sync_to_async(make_vm)(name="new", root=False)
        while not (chunk := await anext(chunks)).startswith(b"id:"):
            assert chunk == b": alive\n\n"
        assert b'"name": "new"' in chunk


@pytest.mark.django_db(transaction=True)
async def test_the_stream_ends_when_its_token_is_revoked(monkeypatch):
    monkeypatch.setattr(consumers, "LOOK_INTERVAL", 0.01)
    response = await stream()
    chunks = aiter(response.streaming_content)
    async with asyncio.timeout(60), aclosing(chunks):
        assert await anext(chunks) == b": connected\n\n"
        token = await sync_to_async(Token.objects.get)()
        await sync_to_async(auth.revoke_token)(token)
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
