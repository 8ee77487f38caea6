"""Files of VMs whose agents lie: about sizes, names and how much is to come."""

from __future__ import annotations

from typing import Any

import pytest

from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import Stream
from nexus_site.core.models import Event
from tests.api.conftest import Ask, content
from tests.vms.real_agents import Agents
from vms.models import VM

pytestmark = pytest.mark.django_db(transaction=True)

FILE = {"name": "x", "type": "file", "size": 10, "mode": 420, "uid": 0, "gid": 0, "modified": 1.0}


def says(*replies: dict[str, Any], then: bytes = b"", reset: bool = False) -> Any:
    """An agent that answers every request with these headers and bytes."""

    async def serve(stream: Stream) -> None:
        await read_header(stream)
        for reply in replies:
            await stream.write(encode_header({"ok": True} | reply))
        await stream.write(then)
        if reset:
            stream.reset()
        else:
            stream.write_eof()

    return serve


async def test_more_than_was_announced_is_left(ask: Ask, agents: Agents, guest: VM) -> None:
    agents.fake(guest, says(FILE, then=b"0123456789and much more"))
    response = await ask("GET", "/content", path="/x")
    assert await content(response) == b"0123456789"


@pytest.mark.parametrize("reset", [False, True])
async def test_less_than_was_announced_breaks_the_answer_off(
    ask: Ask, agents: Agents, guest: VM, reset: bool
) -> None:
    agents.fake(guest, says(FILE, then=b"01234", reset=reset))
    response = await ask("GET", "/content", path="/x")
    with pytest.raises(Exception, match=r"gave 5 of 10 bytes|closed the stream"):
        await content(response)


@pytest.mark.parametrize(
    "lie",
    [
        {"size": -1},
        {"size": 1e300},
        {"size": "10"},
        {"modified": 1e300},
        {"name": "../x"},
        {"name": "x" * 300},
        {"mode": 1 << 20},
        {"uid": True},
    ],
)
@pytest.mark.parametrize("what", ["", "/content", "/archive"])
async def test_facts_that_cannot_be(
    ask: Ask, agents: Agents, guest: VM, lie: dict[str, Any], what: str
) -> None:
    agents.fake(guest, says(FILE | lie))
    response = await ask("GET", what, path="/x")
    assert (response.status_code, response.json()["code"]) == (500, "agent-protocol")


def lists(*names: str, more: bool = False) -> Any:
    async def serve(stream: Stream) -> None:
        header = await read_header(stream)
        if header["op"] == "stat":
            await stream.write(encode_header({"ok": True} | FILE | {"type": "directory"}))
            return
        await stream.write(encode_header({"ok": True, "more": more}))
        for name in names:
            await stream.write(encode_header(FILE | {"name": name}))
        stream.write_eof()

    return serve


@pytest.mark.parametrize(
    "agent",
    [
        lists(*(f"{number:05}" for number in range(501))),
        lists("b", "a", more=True),
        lists("a", "a", more=True),
    ],
    ids=["more than asked for", "out of order", "again and again"],
)
async def test_lists_that_would_not_end(ask: Ask, agents: Agents, guest: VM, agent: Any) -> None:
    agents.fake(guest, agent)
    response = await ask("GET", path="/x")
    assert (response.status_code, response.json()["code"]) == (500, "agent-protocol")


async def test_the_next_page_cannot_be_this_one(ask: Ask, agents: Agents, guest: VM) -> None:
    agents.fake(guest, lists("a", more=True))
    assert (await ask("GET", path="/x")).json()["next_after"] == "a"
    assert (await ask("GET", path="/x", after="a")).status_code == 500


async def test_a_file_whose_size_nobody_knows_is_streamed_to_its_end(
    ask: Ask, agents: Agents, guest: VM
) -> None:
    agents.fake(guest, says(FILE | {"size": 0}, then=b"made as it is read"))
    response = await ask("GET", "/content", path="/proc/x")
    assert "Content-Length" not in response.headers
    assert await content(response) == b"made as it is read"


@pytest.mark.parametrize("size", [-1, "x", None, 1e300])
async def test_an_end_that_cannot_be(ask: Ask, agents: Agents, guest: VM, size: Any) -> None:
    agents.fake(guest, says({}, {"size": size}))
    response = await ask("PUT", "/content", b"x", path="/x")
    assert (response.status_code, response.json()["code"]) == (500, "agent-protocol")
    assert not await Event.objects.filter(kind="vm.files").aexists()
