"""The page of a VM's terminals: what it says in each state, to whom, and what it believes."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import pytest
from django.test import Client

from guest_agent.chunks import ExitStatus
from guest_agent.sessions import SessionState
from nexus_site.core.errors import Retryable
from tests.factories import make_vm
from tests.web.conftest import make_ready_vm
from vms.models import VM
from vms.states import State
from vms.transitions import move
from vms.views import terminal

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


def _session(session_id: str, *argv: str, **more: Any) -> SessionState:
    values: dict[str, Any] = {
        "id": session_id, "argv": argv, "pid": 7, "user": "", "cwd": "/", "tty": True,
        "stdin": True, "started": 1.0, "keep": 4096, "first": 0, "size": 42, "attached": 0,
    }  # fmt: skip
    return SessionState(**values | more)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> list[SessionState]:
    """The sessions of every VM's agent."""
    sessions: list[SessionState] = []

    async def tell(self: object, patience: float) -> list[SessionState]:
        return sessions

    monkeypatch.setattr(terminal.Sessions, "list", tell)
    return sessions


def _page(client: Client, vm: VM, **headers: str) -> str:
    return client.get(f"/vms/{vm.name}/terminal/", headers=headers).content.decode()


def _told(page: str) -> Any:
    """What the page tells its script of the sessions."""
    found = re.search(r'data-sessions="([^"]*)"', page)
    assert found
    return json.loads(html.unescape(found[1]))


def test_a_ready_vm_has_a_tab_for_each_session(client: Client, agent: list[SessionState]) -> None:
    vm = make_ready_vm(name="hello")
    agent += [
        _session("aaaaaaaaaaaac", "-ash"),
        _session("build-7", "/usr/bin/make", "-j2", exit=ExitStatus(code=2)),
    ]
    page = _page(client, vm)
    assert _told(page) == [
        {"id": "aaaaaaaaaaaac", "name": "ash", "command": "-ash", "size": 42, "over": False},
        {"id": "build-7", "name": "make", "command": "/usr/bin/make -j2", "size": 42, "over": True},
    ]
    assert f'data-sockets="/ws/vms/{vm.ref}/sessions/"' in page
    assert f'data-log="/ws/vms/{vm.ref}/console"' in page
    assert 'data-state="ready"' in page
    assert 'aria-current="page">Terminal</a>' in page


def test_what_a_guest_says_is_data(client: Client, agent: list[SessionState]) -> None:
    """Names that lead elsewhere are no sessions, and markup is text."""
    agent += [
        _session("../../other/sessions/aaaaaaaaaaaac", "sh"),
        _session("serial.console", "sh"),
        _session("x" * 65, "sh"),
        _session("fine", '"><script>alert(1)</script>', "y" * 500),
        _session("empty"),
    ]
    page = _page(client, make_ready_vm())
    assert "<script>alert" not in page
    fine, empty = _told(page)
    assert fine["id"] == "fine"
    assert fine["command"].startswith('"><script>')
    assert len(fine["command"]) <= 80
    assert empty["name"] == "program"


def test_an_agent_that_does_not_answer_leaves_the_page_as_it_is(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(self: object, patience: float) -> list[SessionState]:
        raise Retryable("The VM's agent does not answer.")

    monkeypatch.setattr(terminal.Sessions, "list", refuse)
    page = _page(client, make_ready_vm())
    assert _told(page) is None
    assert 'id="terminal"' in page


def _vm_that_is(state: State) -> VM:
    if state == State.CREATED:
        return make_vm()
    vm = make_ready_vm()
    steps = {
        State.STOPPED: (State.STOPPING, State.STOPPED),
        State.STARTING: (State.STOPPING, State.STOPPED, State.STARTING),
        State.RUNNING: (State.STOPPING, State.STOPPED, State.STARTING, State.RUNNING),
        State.SUSPENDED: (State.PAUSED, State.SUSPENDED),
    }
    for step in steps.get(state, (state,)):
        move(vm, step, "for a test")
    return vm


@pytest.mark.parametrize(
    ("state", "words", "starts"),
    [
        (State.CREATED, "It does not run.", True),
        (State.STOPPED, "It does not run.", True),
        (State.CRASHED, "It does not run.", True),
        (State.SUSPENDED, "It is suspended.", False),
        (State.STARTING, "It boots.", False),
        (State.RUNNING, "It boots.", False),
        (State.UNREACHABLE, "The guest does not answer.", False),
        (State.PAUSED, "It is paused.", False),
        (State.STOPPING, "It is stopping.", False),
    ],
)
def test_what_is_not_ready_says_why_and_shows_its_console(
    client: Client, state: State, words: str, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.Sessions, "list", None)  # nobody asks its agent
    vm = _vm_that_is(state)
    page = _page(client, vm)
    assert words in page
    assert ("Start it</button>" in page) == starts
    assert f'data-state="{state}"' in page
    assert _told(page) is None
    assert f'data-log="/ws/vms/{vm.ref}/console"' in page


def test_one_that_has_suspended_itself_says_how_it_wakes(client: Client) -> None:
    vm = _vm_that_is(State.SUSPENDED)
    assert "data-asleep" not in _page(client, vm)
    VM.objects.update(saved_memory={"reason": "idle"}, idle_suspend_minutes=10)
    page = _page(client, vm)
    assert "It has suspended itself." in page
    assert "data-asleep" in page
    assert f'action="/vms/{vm.ref}/resume/"' in page


def test_one_that_somebody_has_paused_is_unpaused_there(client: Client) -> None:
    vm = _vm_that_is(State.PAUSED)
    assert "Unpause" not in _page(client, vm), "it stands still for a moment"
    VM.objects.update(desired_state="paused")
    assert f'action="/vms/{vm.ref}/unpause/"' in _page(client, vm)


def test_the_state_is_fetched_alone_when_something_has_happened(
    client: Client, agent: list[SessionState]
) -> None:
    vm = make_ready_vm()
    agent.append(_session("fine", "sh"))
    asked = {"HX-Request": "true", "Nexus-Fragments": "vms-terminal_state"}
    part = _page(client, vm, **asked)
    assert 'hx-target="#vms-terminal_state"' in part
    assert f'data-live="vm:{vm.ref}"' in part
    assert len(_told(part)) == 1
    assert 'id="terminal"' not in part, "a screen is never swapped"


def test_an_onlooker_sees_the_console_and_nothing_of_the_sessions(
    onlooker: Client, agent: list[SessionState]
) -> None:
    agent.append(_session("fine", "sh", "-c", "secret"))
    page = _page(onlooker, make_ready_vm())
    assert "You may look at the console." in page
    assert "secret" not in page
    assert _told(page) is None
    for control in ("new", "paste"):
        assert f'data-do="{control}"' not in page


def test_a_stranger_is_sent_to_sign_in(stranger: Client) -> None:
    answer = stranger.get(f"/vms/{make_vm().name}/terminal/")
    assert answer.status_code == 302
    assert "/sign-in/" in answer.headers["Location"]


def test_a_vm_that_is_not_there_is_not_found(client: Client) -> None:
    assert client.get("/vms/nobody/terminal/").status_code == 404


def test_pages_lead_to_the_terminal_of_what_is_ready(
    client: Client, agent: list[SessionState]
) -> None:
    up, down = make_ready_vm(name="up"), make_vm(name="down")
    row = client.get("/vms/").content.decode()
    assert f'href="/vms/{up.ref}/terminal/"' in row
    assert f'href="/vms/{down.ref}/terminal/"' not in row
    button = f'class="btn" href="/vms/{up.ref}/terminal/"'
    assert button in client.get("/vms/up/").content.decode()
