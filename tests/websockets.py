"""A websocket client without a network: it talks with an ASGI application directly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from asgiref.testing import ApplicationCommunicator
from asgiref.typing import ASGI3Application

Header = tuple[bytes, bytes]
PATIENCE = 60.0  # seconds; no test measures time


class WebSocket(ApplicationCommunicator):
    """One connection. Channels has such a class too, which cannot be imported without daphne."""

    def __init__(
        self, application: ASGI3Application, path: str, headers: Sequence[Header] = ()
    ) -> None:
        parts = urlsplit(path)
        scope = {
            "type": "websocket",
            "path": unquote(parts.path),
            "query_string": parts.query.encode(),
            "headers": list(headers),
            "subprotocols": [],
        }
        super().__init__(application, scope)

    async def connect(self) -> tuple[bool, Any]:
        """Whether the application accepts, and the subprotocol, or the code of its refusal."""
        await self.send_input({"type": "websocket.connect"})
        answer = await self.receive_output(PATIENCE)
        if answer["type"] == "websocket.close":
            return False, answer.get("code", 1000)
        assert answer["type"] == "websocket.accept", answer
        return True, answer.get("subprotocol")

    async def send_json_to(self, data: object) -> None:
        """Send a text message."""
        await self.send_input({"type": "websocket.receive", "text": json.dumps(data)})

    async def send_to(self, data: bytes) -> None:
        """Send a binary message."""
        await self.send_input({"type": "websocket.receive", "bytes": data})

    async def disconnect(self, code: int = 1000) -> None:
        """Hang up, and wait until the application has noticed."""
        await self.send_input({"type": "websocket.disconnect", "code": code})
        await self.wait(PATIENCE)
