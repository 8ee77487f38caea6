"""How sizes, durations and events are said."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from django.conf import settings

from nexus_site import wording
from nexus_site.core.models import Event


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (512 << 20, "512 MiB"),
        (3 << 29, "1.5 GiB"),
        (5 << 40, "5 TiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    assert wording.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.42, "420 ms"),
        (6.23, "6.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (125, "2 min 5 s"),
        (3 * 3600 + 12 * 60, "3 h 12 min"),
        (5 * 86400 + 7200, "5 d 2 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("actor", "name"),
    [("user:operator", "operator"), ("token:ci", "token ci"), ("system", "system")],
)
def test_actors(actor: str, name: str) -> None:
    assert wording.actor_name(actor) == name


def test_a_move_is_told_with_its_reason() -> None:
    data = {"from": "running", "to": "ready", "reason": "the agent said hello"}
    event = Event(kind="vm.moved", data=data)
    assert wording.event_text(event) == "running → ready: the agent said hello"


def test_an_event_that_nobody_has_words_for_is_told_by_its_kind() -> None:
    assert wording.event_text(Event(kind="vm.turned_blue")) == "turned blue"


def test_there_are_words_for_every_kind_of_event_that_is_written() -> None:
    kinds = {kind for path in _sources() for kind in _kinds_appended(path)}
    assert len(kinds) > 12
    assert not kinds - wording._EVENTS.keys()


def _sources() -> list[Path]:
    rooms = ("nexus_site", "images", "drives", "builds", "vms")
    return [path for room in rooms for path in (Path(settings.BASE_DIR) / room).rglob("*.py")]


def _kinds_appended(path: Path) -> set[str]:
    """The first arguments of ``events.append("kind", …)`` in a source file."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {
        str(call.args[0].value)
        for call in calls
        if ast.unparse(call.func) == "events.append" and isinstance(call.args[0], ast.Constant)
    }
