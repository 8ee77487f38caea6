"""Setting a guest's clock closely.

What the host sends arrives later than it says. How much later is not to be known, but at most
as much as there and back took together: the agent's answer tells its clock, from which that
follows. Where it is too much, as it is in a guest that has just been resumed, the host tries
again, and is ahead by half of it.
"""

from __future__ import annotations

import time

from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration

CLOSE = 0.02  # seconds that are good enough
TRIES = 5


async def set_clock(agent: AgentConnection) -> float | None:
    """Set the guest's clock by the host's, and give it fresh random numbers.

    Returns by how many seconds the clock may be off at most; None where the agent, of a version
    before 0.4, does not tell.
    """
    ahead = off = 0.0
    for _ in range(TRIES):
        answer = await agent.configure(Configuration(time=time.time() + ahead))
        if answer.time is None:
            return None
        under_way = time.time() - answer.time + ahead  # there and back
        off = max(ahead, under_way - ahead)
        if off <= CLOSE:
            break
        ahead = max(0.0, under_way / 2)
    return off
