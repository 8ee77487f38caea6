"""What a client does not read is not made either.

daphne takes everything that an application sends at once, and keeps in memory what its client
does not read. Here a send returns when the connection has room again; then what makes the
data waits as well: a file that is downloaded, a program in a VM.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from daphne.http_protocol import WebRequest  # type: ignore[import-untyped]
from daphne.server import Server  # type: ignore[import-untyped]
from daphne.ws_protocol import WebSocketProtocol  # type: ignore[import-untyped]
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer  # type: ignore[import-untyped]

_hand_over = Server.handle_reply


@implementer(IPushProducer)
class Valve:
    """Closed while a connection's buffer is full; Twisted turns it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def pauseProducing(self) -> None:
        self._open.clear()

    def resumeProducing(self) -> None:
        self._open.set()

    def stopProducing(self) -> None:  # the connection is lost: nothing waits for it
        self._open.set()

    async def wait(self) -> None:
        await self._open.wait()


_valves: WeakKeyDictionary[object, Valve] = WeakKeyDictionary()


async def handle_reply(server: Server, protocol: Any, message: dict[str, Any]) -> None:
    """daphne's own, and then wait until the connection has room."""
    valve = _valves.get(protocol)
    if message["type"] == "http.response.body" and not message.get("more_body", False):
        if valve is not None and protocol.channel is not None:
            protocol.unregisterProducer()  # before the request ends
        await _hand_over(server, protocol, message)
        return
    if valve is None and message["type"] in ("http.response.body", "websocket.send"):
        valve = _valve_of(protocol)
    await _hand_over(server, protocol, message)
    if valve is not None:
        await valve.wait()


def _valve_of(protocol: Any) -> Valve | None:
    """A valve in the way of ``protocol``; None where its connection has gone."""
    valve = Valve()
    if isinstance(protocol, WebRequest):
        if protocol.finished or protocol.channel is None:
            return None
        protocol.registerProducer(valve, True)
    elif isinstance(protocol, WebSocketProtocol) and protocol.transport is not None:
        protocol.transport.unregisterProducer()  # HTTP's, which did the upgrade
        protocol.transport.registerProducer(valve, True)
    else:
        return None
    _valves[protocol] = valve
    return valve


def install() -> None:
    """Have daphne do so in this process."""
    Server.handle_reply = handle_reply
