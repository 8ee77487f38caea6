"""Servers whose every byte is the test's."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
from typing import Any

from nexusctl.websocket import GUID

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Peer:
    """The server's end of one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")
        self.headers: dict[str, str] = {}
        self.path = ""

    def take_request(self) -> str:
        """Its method."""
        method, path, _ = self.file.readline().split()
        self.path = path.decode()
        while line := self.file.readline().strip():
            name, _, value = line.decode().partition(": ")
            self.headers[name.lower()] = value
        return method.decode()

    def answer(self, status: int, body: Any = None) -> None:
        """Answer a request that is no websocket's."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(data)}\r\n\r\n"
        self.sock.sendall(head.encode() + data)

    def body(self) -> Any:
        return json.loads(self.file.read(int(self.headers["content-length"])))

    def shake_hands(self, accept: str = "") -> None:
        if not self.path:
            self.take_request()
        key = self.headers["sec-websocket-key"].encode()
        accept = accept or base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", f"Sec-WebSocket-Accept: {accept}", "", ""]
        self.sock.sendall("\r\n".join(lines).encode())

    def send(self, kind: int, data: bytes, *, first: int = 0x80) -> None:
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", first | kind, size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", first | kind, 126, size)
        else:
            head = struct.pack(">BBQ", first | kind, 127, size)
        self.sock.sendall(head + data)

    def tell(self, kind: str, **fields: Any) -> None:
        self.send(TEXT, json.dumps({"type": kind, **fields}).encode())

    def heard(self) -> tuple[int, bytes]:
        first, second = self.file.read(2)
        assert first & 0x80, "clients send whole messages"
        assert second & 0x80, "clients mask"
        size = second & 0x7F
        if size >= 126:
            size = int.from_bytes(self.file.read(2 if size == 126 else 8))
        mask = self.file.read(4)
        data = self.file.read(size)
        return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))

    def order(self) -> Any:
        kind, data = self.heard()
        assert kind == TEXT
        return json.loads(data)
