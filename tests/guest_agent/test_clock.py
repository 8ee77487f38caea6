"""A guest's clock is set as closely as can be known, whatever the way to the guest takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from guest_agent import clock
from guest_agent.clock import CLOSE, TRIES, set_clock
from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration, Configured


class World:
    """The host's time, and a guest that is some seconds away: there, and back."""

    def __init__(self, ways: Sequence[tuple[float, float]], *, knows_time: bool = True) -> None:
        self.now, self.behind, self.ways = 1.8e9, 1e6, list(ways)
        self.knows_time, self.tries = knows_time, 0

    def time(self) -> float:
        return self.now

    async def configure(self, wanted: Configuration) -> Configured:
        there, back = self.ways[min(self.tries, len(self.ways) - 1)]
        self.tries += 1
        self.now += there
        assert wanted.time is not None
        assert len(wanted.entropy) == 64
        self.behind = self.now - wanted.time
        answer = Configured(self.now - self.behind if self.knows_time else None)
        self.now += back
        return answer


async def set_in(world: World, monkeypatch: pytest.MonkeyPatch) -> float | None:
    monkeypatch.setattr(clock, "time", world)
    return await set_clock(cast(AgentConnection, cast(Any, world)))


@pytest.mark.parametrize(
    ("ways", "tries"),
    [
        ([(0.002, 0.003)], 1),
        ([(0.3, 0.1), (0.002, 0.003)], 3),
        ([(0.3, 0.1), (0.2, 0.2)], TRIES),
        ([(0.1, 0.0), (0.05, 0.05), (0.004, 0.012)], 4),
    ],
)
async def test_what_it_may_be_off_is_known(
    ways: Sequence[tuple[float, float]], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(ways)
    off = await set_in(world, monkeypatch)
    assert off is not None
    assert abs(world.behind) <= off + 1e-6
    assert world.tries == tries
    assert (off <= CLOSE) == (tries < TRIES)


async def test_a_way_that_takes_long_again_and_again_is_halved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World([(0.2, 0.2)])
    await set_in(world, monkeypatch)
    assert abs(world.behind) < 1e-3


async def test_an_agent_that_does_not_tell_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([(0.3, 0.3)], knows_time=False)
    assert await set_in(world, monkeypatch) is None
    assert world.tries == 1
