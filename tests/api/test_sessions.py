"""Sessions by the API; the agent is the real one, on this machine."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from nexus_site.core import auth
from nexus_site.core.models import Event, Token
from tests.api.real_agents import RealAgent, real_agent
from tests.factories import make_vm
from tests.vms.fake_agents import PATIENCE
from vms import program_streams
from vms.models import VM
from vms.services import sessions as rules
from vms.states import State

pytestmark = pytest.mark.django_db(transaction=True)

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
async def vm(db: None) -> VM:
    return await sync_to_async(make_vm)(name="hello", state=State.READY)


@pytest.fixture
async def agent(vm: VM, settings: Any, tmp_path: Path) -> AsyncIterator[RealAgent]:
    async with real_agent(vm, Path(settings.NEXUS.run_dir), tmp_path) as made:
        yield made


@pytest.fixture
async def ask(db: None) -> Ask:
    return await asking("operate")


async def asking(scope: str) -> Ask:
    secret = (await sync_to_async(auth.create_token)(scope, scope))[1]

    async def ask(
        method: str, path: str = "", body: Any = None, headers: Any = None, **query: Any
    ) -> Any:
        call = getattr(AsyncClient(raise_request_exception=False), method)
        given = {} if body is None else {"data": body, "content_type": "application/json"}
        async with asyncio.timeout(PATIENCE):
            return await call(
                f"/v1/vms/hello/{path or 'sessions'}{'?' if query else ''}{urlencode(query)}",
                headers={"Authorization": f"Bearer {secret}"} | (headers or {}),
                **given,
            )

    return ask


async def started(ask: Ask, script: str, **more: Any) -> dict[str, Any]:
    response = await ask("post", body={"argv": ["sh", "-c", script]} | more)
    assert response.status_code == 201, response.content
    made: dict[str, Any] = response.json()
    return made


async def ended(ask: Ask, name: str) -> dict[str, Any]:
    """The session ``name``, when it has ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found: dict[str, Any] = (await ask("get", f"sessions/{name}")).json()
            if found["exit"]:
                return found
            await asyncio.sleep(0.05)


async def output(ask: Ask, name: str, **query: Any) -> dict[str, Any]:
    response = await ask("get", f"sessions/{name}/output", **query)
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


async def written(ask: Ask, name: str, size: int) -> dict[str, Any]:
    """The output of the session, when there is so much of it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if (found := await output(ask, name))["size"] >= size:
                return found
            await asyncio.sleep(0.05)


async def read_events(response: Any) -> list[tuple[str, str, dict[str, Any]]]:
    text = "".join([piece.decode() async for piece in response.streaming_content])
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line[0] != ":")
        if fields:
            found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
    return found


def is_problem(response: Any, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code), response.content


# Start, list, find


async def test_a_program_lives_on(agent: RealAgent, vm: VM, ask: Ask) -> None:
    made = await started(ask, "echo hi; exit 3", id="job")
    assert (made["id"], made["argv"]) == ("job", ["sh", "-c", "echo hi; exit 3"])
    over = await ended(ask, "job")
    assert over["exit"] == {"exit_code": 3, "signal": None, "timed_out": False}
    assert over["ended_at"] >= over["started_at"]
    (listed,) = (await ask("get")).json()
    times = {"started_at": "", "ended_at": ""}  # by the guest's clock as it is now
    assert listed | times == over | times
    assert await output(ask, "job") == {
        "stdout": "hi\n",
        "stderr": "",
        "offset": 0,
        "next_offset": 3,
        "size": 3,
        "lost": 0,
        "exit": over["exit"],
    }
    event = await Event.objects.aget(kind="vm.session")
    assert (event.actor, event.data) == ("token:operate", {"program": "sh", "session": "job"})


async def test_a_name_that_is_taken_is_that_session(agent: RealAgent, ask: Ask) -> None:
    made = await started(ask, "sleep 60", id="job")
    again = await ask("post", body={"argv": ["other"], "id": "job"})
    assert again.status_code == 200
    assert again.json()["pid"] == made["pid"]
    assert await Event.objects.filter(kind="vm.session").acount() == 1


async def test_names_are_made_of_programs(agent: RealAgent, ask: Ask) -> None:
    names = [(await started(ask, "true"))["id"] for _ in range(2)]
    assert names[0] == "sh"
    assert names[1].startswith("sh-")
    shell = await ask("post", body={"shell": True, "tty": {"rows": 5, "cols": 60}})
    assert (shell.json()["id"], shell.json()["tty"], shell.json()["stdin"]) == ("shell", True, True)


async def test_it_outlives_the_worker(agent: RealAgent, ask: Ask) -> None:
    await started(ask, "read line; echo got $line", stdin=True, id="job")
    await agent.disconnect()
    assert (await ask("get")).status_code == 409
    await agent.connect()
    assert (await ask("post", "sessions/job/input", {"data": "it\n"})).status_code == 204
    await ended(ask, "job")
    assert (await output(ask, "job"))["stdout"] == "got it\n"


async def test_a_detached_program_is_a_session(agent: RealAgent, ask: Ask) -> None:
    made = await ask("post", "exec", {"argv": ["sleep", "60"], "detach": True})
    assert (made.status_code, made.json()["id"], made.json()["exit"]) == (201, "sleep", None)
    refused = await ask("post", "exec", {"argv": ["cat"], "detach": True, "stdin": "x"})
    is_problem(refused, 422, "bad-stdin")
    assert not await Event.objects.filter(kind="vm.exec").aexists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"argv": ["x"], "id": "a/b"},
        {"argv": ["x"], "id": "x" * 65},
        {"argv": ["x"], "keep_bytes": 1},
        {"argv": ["x"], "tty": {"rows": 0}},
        {"argv": ["/no/such/program"]},
    ],
)
async def test_what_no_session_can_be(agent: RealAgent, ask: Ask, body: Any) -> None:
    assert (await ask("post", body=body)).status_code == 422
    assert not await Event.objects.filter(kind="vm.session").aexists()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", "", None),
        ("get", "/output", None),
        ("delete", "", None),
        ("post", "/signal", {"signal": "INT"}),
        ("post", "/input", {"data": "x"}),
    ],
)
async def test_a_session_that_is_not_there(
    agent: RealAgent, ask: Ask, method: str, path: str, body: Any
) -> None:
    response = await ask(method, f"sessions/job{path}", body)
    is_problem(response, 404, "session-not-found")
    assert "nexusctl vm session list hello" in response.json()["hint"]


@pytest.mark.parametrize("path", ["sessions", "sessions/job", "sessions/job/output"])
async def test_readers_see_none_of_it(agent: RealAgent, path: str) -> None:
    is_problem(await (await asking("read"))("get", path), 403, "scope")


async def test_a_vm_that_is_not_ready(vm: VM, ask: Ask) -> None:
    await VM.objects.filter(pk=vm.pk).aupdate(state=State.STOPPED)
    is_problem(await ask("get"), 409, "vm-not-ready")


# Output


async def test_output_from_any_offset(agent: RealAgent, ask: Ask) -> None:
    await started(ask, "printf 'aä'; sleep 0.1; printf b >&2", id="job")
    await ended(ask, "job")
    first = await output(ask, "job")
    assert (first["stdout"], first["stderr"], first["next_offset"]) == ("aä", "b", 4)
    rest = await output(ask, "job", offset=3, encoding="base64")
    assert (rest["stdout"], base64.b64decode(rest["stderr"])) == ("", b"b")
    assert (await output(ask, "job", offset=99))["next_offset"] == 4


async def test_a_character_cut_in_two_is_told_whole(agent: RealAgent, ask: Ask) -> None:
    script = r"printf 'a\303'; read x; printf '\244'"
    await started(ask, script, id="job", stdin=True)
    first = await written(ask, "job", 2)
    assert (first["stdout"], first["next_offset"]) == ("a", 1)
    assert (await ask("post", "sessions/job/input", {"data": "\n"})).status_code == 204
    await ended(ask, "job")
    assert (await output(ask, "job", offset=1))["stdout"] == "ä"


async def test_what_is_not_kept_is_counted(agent: RealAgent, ask: Ask) -> None:
    await started(ask, "head -c 100000 /dev/zero; echo end", id="job", keep_bytes=4096)
    await ended(ask, "job")
    found = await output(ask, "job")
    assert found["offset"] == found["lost"] > 0
    assert found["stdout"].endswith("\0end\n")
    assert found["next_offset"] == found["size"] == 100_004


async def test_an_answer_is_bounded(
    agent: RealAgent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_streams, "MAX_OUTPUT", 10_000)
    await started(ask, "head -c 200000 /dev/zero", id="job")
    await ended(ask, "job")
    got, offset = 0, 0
    while offset < 200_000:
        part = await output(ask, "job", offset=offset)
        got, offset = got + len(part["stdout"]), part["next_offset"]
        assert len(part["stdout"]) < 100_000
    assert got == 200_000


async def test_events_follow_to_the_end(agent: RealAgent, ask: Ask) -> None:
    made = await started(ask, "echo one; read x; echo two; exit 4", id="job", stdin=True)
    streaming = await ask("get", "sessions/job/output", follow=1)
    reading = asyncio.create_task(read_events(streaming))
    await ask("post", "sessions/job/input", {"data": "\n"})
    async with asyncio.timeout(PATIENCE):
        events = await reading
    assert events == [
        ("attached", "", {"pid": made["pid"], "tty": False, "offset": 0}),
        ("stdout", "4", {"text": "one\n"}),
        ("stdout", "8", {"text": "two\n"}),
        ("exit", "8", {"exit_code": 4, "signal": None, "timed_out": False}),
    ]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "4"}
    again = await read_events(await ask("get", "sessions/job/output", headers=headers, offset=1))
    assert again[1:] == events[2:]


async def test_events_tell_of_gaps(agent: RealAgent, ask: Ask) -> None:
    await started(ask, "head -c 100000 /dev/zero", id="job", keep_bytes=4096)
    size = (await ended(ask, "job"))["size"]
    events = await read_events(await ask("get", "sessions/job/output", follow=1))
    assert events[1][0] == "gap"
    assert events[1][2]["lost"] == int(events[1][1])
    assert events[-1][:2] == ("exit", str(size))


async def test_a_revoked_token_ends_the_stream_alone(
    agent: RealAgent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_streams, "KEEP_ALIVE", 0.05)
    await started(ask, "sleep 60", id="job")
    streaming = await ask("get", "sessions/job/output", follow=1)
    await Token.objects.all().adelete()
    async with asyncio.timeout(PATIENCE):
        events = await read_events(streaming)
    assert (events[-1][0], events[-1][2]["status"]) == ("error", 401)
    assert (await (await asking("admin"))("get", "sessions/job")).json()["exit"] is None


# Signals, input, the end


async def test_a_signal(agent: RealAgent, ask: Ask) -> None:
    await started(ask, "exec sleep 60", id="job")
    assert (await ask("post", "sessions/job/signal", {"signal": "INT"})).status_code == 204
    assert (await ended(ask, "job"))["exit"]["signal"] == 2
    is_problem(await ask("post", "sessions/job/signal", {"signal": "NOPE"}), 422, "bad-signal")


async def test_input_and_its_end(agent: RealAgent, ask: Ask) -> None:
    await started(ask, "wc -c", id="job", stdin=True)
    whole = base64.b64encode(bytes(65536)).decode()
    for _ in range(3):
        answer = await ask("post", "sessions/job/input", {"data": whole, "encoding": "base64"})
        assert answer.status_code == 204
    assert (await ask("post", "sessions/job/input", {"data": "x", "end": True})).status_code == 204
    await ended(ask, "job")
    assert (await output(ask, "job"))["stdout"].strip() == str(3 * 65536 + 1)
    is_problem(await ask("post", "sessions/job/input", {"data": "x"}), 409, "session-ended")


async def test_input_that_is_not_taken_is_told(
    agent: RealAgent, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "INPUT_PATIENCE", 0.3)
    await started(ask, "sleep 60", id="none")
    is_problem(await ask("post", "sessions/none/input", {"data": "x"}), 409, "no-input")
    await started(ask, "sleep 60", id="deaf", stdin=True)
    full = {"data": "x" * 65536}  # as much as a pipe holds
    assert (await ask("post", "sessions/deaf/input", full)).status_code == 204
    is_problem(await ask("post", "sessions/deaf/input", full), 409, "input-waits")
    too_much = {"data": "x" * 65537}
    is_problem(await ask("post", "sessions/deaf/input", too_much), 422, "too-much-input")


async def test_forgetting(agent: RealAgent, ask: Ask) -> None:
    await started(ask, "trap '' TERM; sleep 60 & wait", id="job")
    is_problem(await ask("delete", "sessions/job"), 409, "session-runs")
    assert (await ask("delete", "sessions/job", force=1)).status_code == 204
    assert (await ask("get")).json() == []
    await started(ask, "true", id="job")
    await ended(ask, "job")
    assert (await ask("delete", "sessions/job")).status_code == 204
    is_problem(await ask("get", "sessions/job"), 404, "session-not-found")
