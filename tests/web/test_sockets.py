"""Websockets: who gets in, what they are told, and when they are shut out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from builds.log import log_path
from builds.models import Build, KernelBuild
from nexus_site.core import auth, events
from nexus_site.core.consumers import BAD_GREETING, FORBIDDEN, MISSING, UNKNOWN, feed
from nexus_site.core.models import Token
from nexus_site.sockets import sockets
from tests.factories import make_build, make_kernel_build, make_vm
from tests.websockets import WebSocket
from vms.models import VM
from vms.paths import make_vm_dir
from vms.states import State
from vms.transitions import move

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 60  # seconds; nothing here is timed
HOST = b"127.0.0.1:9600"
OWN_PAGE = (b"origin", b"http://" + HOST)


async def db(call: Callable[..., Any], *args: Any) -> Any:
    return await sync_to_async(call)(*args)


@pytest.fixture
def token(db: None) -> tuple[Token, str]:
    return auth.create_token("ci", "read")


@pytest.fixture
def cookie() -> bytes:
    """The operator's session, as a browser sends it."""
    client = Client()
    client.force_login(auth.ensure_operator())
    return b"nexus_session=" + client.cookies["nexus_session"].value.encode()


@asynccontextmanager
async def opened(path: str, *headers: tuple[bytes, bytes]) -> AsyncIterator[WebSocket]:
    """A socket that Nexus has accepted."""
    socket = WebSocket(sockets, path, headers=[(b"host", HOST), *headers])
    accepted, code = await socket.connect()
    assert accepted, code
    try:
        yield socket
    finally:
        await socket.disconnect()


def bearer(token: tuple[Token, str]) -> tuple[bytes, bytes]:
    return b"authorization", f"Bearer {token[1]}".encode()


async def heard(socket: WebSocket) -> dict[str, Any]:
    message = await socket.receive_output(timeout=PATIENCE)
    assert message["type"] == "websocket.send", message
    return dict(json.loads(message["text"]))


async def closed_with(socket: WebSocket) -> int:
    message = await socket.receive_output(timeout=PATIENCE)
    assert message["type"] == "websocket.close", message
    return int(message["code"])


# Who gets in


@pytest.mark.parametrize(
    "origin",
    [
        (),
        ((b"origin", b"http://evil.example"),),
        ((b"origin", b"http://127.0.0.1:3000"),),
        ((b"origin", b"null"),),
    ],
    ids=["none", "another site", "another port of this host", "a sandbox"],
)
async def test_a_session_is_taken_from_nexus_s_own_pages_alone(
    cookie: bytes, origin: tuple[tuple[bytes, bytes], ...]
) -> None:
    headers = [(b"host", HOST), (b"cookie", cookie), *origin]
    socket = WebSocket(sockets, "/ws/events", headers=headers)
    assert await socket.connect() == (False, FORBIDDEN)


async def test_a_host_that_is_not_ours_is_refused(cookie: bytes) -> None:
    headers = [(b"host", b"rebound.example"), (b"origin", b"http://rebound.example")]
    socket = WebSocket(sockets, "/ws/events", headers=[*headers, (b"cookie", cookie)])
    assert await socket.connect() == (False, FORBIDDEN)


async def test_without_a_session_the_socket_closes_at_once() -> None:
    async with opened("/ws/events", OWN_PAGE) as socket:
        assert await closed_with(socket) == UNKNOWN


async def test_a_wrong_token_is_not_saved_by_a_good_session(cookie: bytes) -> None:
    wrong = (b"authorization", b"Bearer nxt_wrong")
    async with opened("/ws/events", OWN_PAGE, (b"cookie", cookie), wrong) as socket:
        assert await closed_with(socket) == UNKNOWN


@pytest.mark.parametrize("greeting", ["", "nonsense", "[]", '{"after": "x"}', "7"])
async def test_a_greeting_that_is_none_closes(token: tuple[Token, str], greeting: str) -> None:
    async with opened("/ws/events", bearer(token)) as socket:
        await socket.send_input({"type": "websocket.receive", "text": greeting})
        assert await closed_with(socket) == BAD_GREETING


# Events


async def test_a_browser_is_told_what_changes(cookie: bytes) -> None:
    async with opened("/ws/events", OWN_PAGE, (b"cookie", cookie)) as socket:
        await socket.send_json_to({"after": await db(events.last_seq)})
        vm: VM = await db(make_vm)
        await db(move, vm, State.STARTING, "start requested")
        created, moved = await heard(socket), await heard(socket)
    assert created | {"seq": 0} == {"seq": 0, "subject": f"vm:{vm.ref}", "kind": "vm.created"}
    assert moved == {"seq": created["seq"] + 1, "subject": f"vm:{vm.ref}", "kind": "vm.moved"}


async def test_who_comes_back_hears_what_was_missed(token: tuple[Token, str]) -> None:
    before = await db(events.last_seq)
    vm: VM = await db(make_vm)
    await db(move, vm, State.STARTING, "start requested")
    async with opened("/ws/events", bearer(token)) as socket:
        await socket.send_json_to({"after": before + 1})
        assert (await heard(socket))["kind"] == "vm.moved"


async def test_many_missed_events_all_come_in_order(
    token: tuple[Token, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus_site.core.consumers.BATCH", 3)
    vm: VM = await db(make_vm)
    for _ in range(10):
        await db(events.append, "vm.changed", vm)
    async with opened("/ws/events", bearer(token)) as socket:
        await socket.send_json_to({"after": 0})
        numbers = [(await heard(socket))["seq"] for _ in range(12)]
    assert numbers == list(range(numbers[0], numbers[0] + 12))


async def test_without_a_number_only_news_come(token: tuple[Token, str]) -> None:
    vm: VM = await db(make_vm)
    async with opened("/ws/events", bearer(token)) as socket:
        await socket.send_json_to({})
        await socket.send_json_to({"after": 0})  # a second greeting changes nothing
        assert await socket.receive_nothing()
        await db(move, vm, State.STARTING, "start requested")
        assert (await heard(socket))["kind"] == "vm.moved"


async def test_a_revoked_token_hears_nothing_more(token: tuple[Token, str]) -> None:
    async with opened("/ws/events", bearer(token)) as socket:
        await socket.send_json_to({"after": await db(events.last_seq)})
        await db(make_vm)
        await heard(socket)
        await db(auth.revoke_token, token[0])
        assert await closed_with(socket) == UNKNOWN


async def test_signing_out_elsewhere_ends_the_socket(cookie: bytes) -> None:
    async with opened("/ws/events", OWN_PAGE, (b"cookie", cookie)) as socket:
        await socket.send_json_to({"after": await db(events.last_seq)})
        await db(make_vm)
        await heard(socket)
        await db(User.objects.all().delete)
        await db(make_vm)
        assert await closed_with(socket) == UNKNOWN


async def test_a_heartbeat_is_told_without_an_event(token: tuple[Token, str]) -> None:
    vm: VM = await db(make_vm)
    last = await db(events.last_seq)
    async with opened("/ws/events", bearer(token)) as socket:
        await socket.send_json_to({"after": last})
        assert await socket.receive_nothing()
        await db(lambda: VM.objects.filter(pk=vm.pk).update(heartbeat_at=timezone.now()))
        message = await heard(socket)
    assert message == {"seq": last, "subject": f"heartbeat:{vm.ref}", "kind": "pulse"}


async def test_the_log_is_read_once_for_all_and_not_when_nobody_looks(
    token: tuple[Token, str],
) -> None:
    async with opened("/ws/events", bearer(token)) as one:
        await one.send_json_to({"after": 0})
        await heard(one)
        task = feed()._task
        async with opened("/ws/events", bearer(token)) as two:
            await two.send_json_to({"after": 0})
            await heard(two)
            assert feed()._task is task
    assert feed()._task is None


# Logs


async def test_a_console_is_followed_from_where_the_page_ends(token: tuple[Token, str]) -> None:
    vm: VM = await db(make_vm)
    console = (await db(make_vm_dir, vm)) / "console.log"
    console.write_bytes(b"old lines\r\n")
    async with opened(f"/ws/vms/{vm.ref}/console", bearer(token)) as socket:
        await socket.send_json_to({"after": 11})
        assert await socket.receive_nothing()
        with console.open("ab") as file:
            file.write(b"\x1b[32mnew\x1b[0m lines\r\n")
        assert await heard(socket) == {"text": "new lines\n", "next": 31}


async def test_a_sequence_cut_in_two_is_put_together(token: tuple[Token, str]) -> None:
    vm: VM = await db(make_vm)
    console = (await db(make_vm_dir, vm)) / "console.log"
    console.write_bytes(b"a\x1b[3")
    async with opened(f"/ws/vms/{vm.ref}/console", bearer(token)) as socket:
        await socket.send_json_to({"after": 0})
        assert await heard(socket) == {"text": "a", "next": 1}
        with console.open("ab") as file:
            file.write(b"2mb")
        assert await heard(socket) == {"text": "b", "next": 7}


async def test_the_console_of_no_vm_closes(token: tuple[Token, str]) -> None:
    async with opened("/ws/vms/nowhere/console", bearer(token)) as socket:
        await socket.send_json_to({})
        assert await closed_with(socket) == MISSING


async def test_a_build_s_log_is_followed(token: tuple[Token, str]) -> None:
    build: Build = await db(make_build)
    path = log_path(build)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("packing 10 files\n")
    async with opened(f"/ws/builds/{build.ref}/log", bearer(token)) as socket:
        await socket.send_json_to({"after": 0})
        assert (await heard(socket))["text"] == "packing 10 files\n"


async def test_a_kernel_build_s_log_is_followed(token: tuple[Token, str]) -> None:
    build: KernelBuild = await db(make_kernel_build)
    path = log_path(build)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("CC kernel/fork.o\n")
    async with opened(f"/ws/kernel-builds/{build.ref}/log", bearer(token)) as socket:
        await socket.send_json_to({"after": 0})
        assert (await heard(socket))["text"] == "CC kernel/fork.o\n"
