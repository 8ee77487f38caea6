"""Looks at sessions over a websocket; the agent is the real one, on this machine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from guest_agent.exec import Program
from nexus_site.core import auth
from nexus_site.core.models import Event, Token
from nexus_site.sockets import sockets
from tests.api.real_agents import RealAgent, real_agent
from tests.factories import make_vm
from tests.vms.fake_agents import PATIENCE
from tests.websockets import WebSocket
from vms import services, stream_socket
from vms.models import VM
from vms.states import State

pytestmark = pytest.mark.django_db(transaction=True)

SHELL = {"shell": True, "env": {"PS1": "> "}}


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


class Look:
    """A client of ``/ws/vms/hello/sessions/ID``; ``offset`` is where the next output lies."""

    def __init__(self, secret: str, session: str = "main", **greeting: Any) -> None:
        headers = [(b"host", b"127.0.0.1:9600")]
        headers += [(b"authorization", f"Bearer {secret}".encode())] if secret else []
        path = f"/ws/vms/hello/sessions/{session}"
        self.raw = WebSocket(sockets, path, headers=headers)
        self.greeting = {"offset": 0, "rows": 24, "cols": 80, "start": None} | greeting
        self.seen, self.offset = b"", 0
        self.others: list[dict[str, Any]] = []

    async def __aenter__(self) -> Look:
        accepted, code = await self.raw.connect()
        assert accepted, code
        await self.raw.send_json_to(self.greeting)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.raw.disconnect()

    async def tell(self, **message: Any) -> None:
        await self.raw.send_json_to(message)

    async def type(self, text: str) -> None:
        await self.raw.send_to(text.encode())

    async def attached(self) -> dict[str, Any]:
        message = await self.message("attached")
        self.offset = message["offset"]
        return message

    async def message(self, kind: str) -> dict[str, Any]:
        """The next message of ``kind``; output is put aside."""
        while True:
            heard = await self._hear()
            if isinstance(heard, dict) and heard["type"] == kind:
                return heard

    async def read_until(self, wanted: bytes) -> bytes:
        while wanted not in self.seen:
            await self._hear()
        return self.seen

    async def closed(self) -> int:
        """The code with which the server closes."""
        while True:
            if isinstance(heard := await self._hear(), int):
                return heard

    async def fails(self) -> tuple[str, int]:
        problem = (await self.message("error"))["problem"]
        return problem["code"], await self.closed()

    async def _hear(self) -> dict[str, Any] | int | None:
        message = await self.raw.receive_output(timeout=PATIENCE)
        if message["type"] == "websocket.close":
            return int(message["code"])
        if data := message.get("bytes"):
            assert data[0] in (1, 2)
            self.seen += data[1:]
            self.offset += len(data) - 1
            return None
        heard: dict[str, Any] = json.loads(message["text"])
        if heard["type"] == "gap":
            assert heard["offset"] > self.offset
            self.offset = heard["offset"]
        return heard


async def start(vm: VM, name: str, script: str, **wanted: Any) -> None:
    """A session that keeps 4096 bytes of output."""
    program = Program(["sh", "-c", script], **wanted)
    await services.start_session(vm, name, program, keep=4096)


def until_size(size: str) -> str:
    """A shell's wait for a terminal of this size, which comes by another way than what is typed."""
    return f'until [ "$(stty size)" = "{size}" ]; do sleep 0.1; done'


async def test_a_shell_survives_its_looks(agent: RealAgent, secret: str) -> None:
    async with Look(secret, start=SHELL) as look:
        attached = await look.attached()
        assert attached | {"pid": 0} == {
            "type": "attached",
            "pid": 0,
            "offset": 0,
            "tty": True,
            "stdin": True,
            "existing": False,
        }
        await look.type("WORD=otter; stty size\n")
        await look.read_until(b"24 80")
        await look.tell(type="resize", rows=50, cols=200)
        await look.type(f"{until_size('50 200')}; echo resi''zed\n")
        await look.read_until(b"resized")
    async with Look(secret, start=SHELL, rows=31, cols=99) as again:
        attached_again = await again.attached()
        assert (attached_again["existing"], attached_again["pid"]) == (True, attached["pid"])
        await again.read_until(b"resized")  # the scrollback
        await again.type(f"{until_size('31 99')}; echo $WORD$WORD\n")
        await again.read_until(b"otterotter")
        await again.type("exit 3\n")
        ended = await again.message("exit")
        assert (ended["code"], ended["signal"]) == (3, None)
        assert await again.closed() == 1000


async def test_history_says_who_started_what(agent: RealAgent, vm: VM, secret: str) -> None:
    for _ in range(2):
        async with Look(secret, start={"argv": ["sh", "-c", "sleep 60 # otter"]}) as look:
            await look.attached()
    event = await Event.objects.aget(kind="vm.session")
    assert (event.actor, event.subject_id) == ("token:ci", vm.id)
    assert event.data == {"program": "sh", "session": "main"}


async def test_it_goes_on_from_any_offset(agent: RealAgent, vm: VM, secret: str) -> None:
    await start(vm, "main", "echo one; echo two; echo three >&2; exit 4", merge=True)
    async with Look(secret) as look:
        await look.message("exit")
        assert look.seen == b"one\ntwo\nthree\n"
    async with Look(secret, offset=4) as look:
        assert (await look.attached())["offset"] == 4
        ended = await look.message("exit")
        assert (look.seen, look.offset, ended["code"]) == (b"two\nthree\n", 14, 4)
    async with Look(secret, offset=14) as look:
        await look.attached()
        await look.message("exit")
        assert (look.seen, look.offset) == (b"", 14)


async def test_what_is_not_kept_is_skipped(agent: RealAgent, vm: VM, secret: str) -> None:
    await start(vm, "main", "head -c 100000 /dev/zero; echo end; sleep 60")
    async with Look(secret) as look:
        await look.read_until(b"end\n")
    async with Look(secret) as look:
        assert 0 < (await look.attached())["offset"] <= 100_004
        await look.read_until(b"end\n")
        assert look.offset == 100_004


async def test_input_waits_for_room_and_its_end(agent: RealAgent, vm: VM, secret: str) -> None:
    await start(vm, "main", "wc -c", stdin=True)
    async with Look(secret) as look:
        await look.attached()
        for _ in range(16):
            await look.raw.send_to(bytes(32 * 1024))
            assert (await look.message("window"))["bytes"] == 32 * 1024
        await look.tell(type="eof")
        await look.read_until(b"524288\n")
        assert (await look.message("exit"))["code"] == 0


async def test_a_signal(agent: RealAgent, vm: VM, secret: str) -> None:
    await start(vm, "main", "echo go; exec sleep 60")
    async with Look(secret) as look:
        await look.read_until(b"go\n")
        await look.tell(type="signal", signal="TERM")
        ended = await look.message("exit")
        assert (ended["code"], ended["signal"]) == (None, 15)


async def test_a_session_that_takes_no_input_says_so(agent: RealAgent, vm: VM, secret: str) -> None:
    await start(vm, "main", "sleep 60")
    async with Look(secret) as look:
        assert not (await look.attached())["stdin"]
        await look.type("x")
        assert await look.fails() == ("no-input", 4409)


async def test_a_lost_worker_is_told_and_the_session_goes_on(
    agent: RealAgent, vm: VM, secret: str
) -> None:
    await start(vm, "main", "echo go; cat", stdin=True)
    async with Look(secret) as look:
        await look.read_until(b"go\n")
        await agent.disconnect()
        problem = (await look.message("error"))["problem"]
        assert (problem["status"], await look.closed()) == (503, 4503)
        assert "goes on" in problem["hint"]
    await agent.connect()
    async with Look(secret, offset=look.offset) as look:
        await look.attached()
        await look.type("still here\n")
        assert await look.read_until(b"still here\n") == b"still here\n"


@pytest.mark.parametrize(
    ("greeting", "code"),
    [
        ({"offset": -1}, "validation"),
        ({"rows": 0}, "validation"),
        ({"start": {"argv": []}}, "bad-program"),
        ({"start": {"argv": ["/no/such/program"]}}, "cannot-run"),
        ({"fly": True}, "validation"),
    ],
)
async def test_a_greeting_that_is_none(
    agent: RealAgent, secret: str, greeting: dict[str, Any], code: str
) -> None:
    async with Look(secret, **greeting) as look:
        assert await look.fails() == (code, 4422)


async def test_a_session_that_is_not_there(agent: RealAgent, secret: str) -> None:
    async with Look(secret) as look:
        assert await look.fails() == ("session-not-found", 4404)


async def test_a_name_that_no_session_can_have(agent: RealAgent, secret: str) -> None:
    async with Look(secret, session="a.b", start=SHELL) as look:
        assert await look.fails() == ("session-name", 4422)


async def test_a_vm_that_is_not_ready(vm: VM, secret: str) -> None:
    await VM.objects.filter(pk=vm.pk).aupdate(state=State.STOPPED)
    async with Look(secret) as look:
        assert await look.fails() == ("vm-not-ready", 4409)


@pytest.mark.parametrize(("scope", "code"), [("read", 4403), (None, 4401)])
async def test_who_may_not(vm: VM, scope: str | None, code: int) -> None:
    secret = (await sync_to_async(auth.create_token)("x", scope))[1] if scope else "nxt_wrong"
    async with Look(secret) as look:
        assert (await look.fails())[1] == code


async def test_a_revoked_token_ends_the_look_alone(
    agent: RealAgent, vm: VM, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_socket, "LOOK_AFTER", 0.05)
    await start(vm, "main", "sleep 60")
    async with Look(secret) as look:
        await look.attached()
        await Token.objects.all().adelete()
        assert (await look.fails())[1] == 4401
    (session,) = await services.sessions_of(vm).list()
    assert session.exit is None
