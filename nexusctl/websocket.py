"""A websocket (RFC 6455), the client's end, on a connection of ``http.client``.

It does what ``nexusctl`` needs and no more: whole messages, no extensions. A library would
double the time that the command takes to start.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import struct
from http.client import HTTPConnection, HTTPException
from typing import BinaryIO, NamedTuple

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MAX_MESSAGE = 4 * 1024 * 1024
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Message(NamedTuple):
    """``kind`` is TEXT or BINARY; or CLOSE, with the code as ``code``."""

    kind: int
    data: bytes
    code: int = 0


class Websocket:
    """One socket. A thread may send while another one receives."""

    def __init__(self, connection: HTTPConnection, path: str, headers: dict[str, str]) -> None:
        """Shake hands over ``connection``; raises ``HTTPException`` when the server does not."""
        self._file, self._sock = _shake_hands(connection, path, headers), connection.sock
        self._kind, self._pieces = 0, bytearray()  # of the message whose frames are coming

    def send(self, kind: int, data: bytes) -> None:
        """Send one message in one frame, masked as clients must."""
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | kind, 0x80 | size)
        elif size < 1 << 16:
            head = struct.pack(">BBH", 0x80 | kind, 0xFE, size)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 0xFF, size)
        mask = os.urandom(4)
        self._sock.sendall(head + mask + _masked(data, mask))

    def lose_after(self, silence: float) -> None:
        """From now on it is ``TimeoutError`` when nothing comes for so many seconds."""
        self._sock.settimeout(silence)

    def shut(self) -> None:
        """End it at once, whichever thread receives."""
        with contextlib.suppress(OSError):  # it has ended already
            self._sock.shutdown(socket.SHUT_RDWR)

    def receive(self) -> Message:
        """The next message, a ping included; raises ``HTTPException`` or ``OSError`` when there
        is none."""
        while True:
            last, opcode, piece = self._frame(MAX_MESSAGE - len(self._pieces))
            if opcode == CLOSE:
                code = int.from_bytes(piece[:2]) if len(piece) >= 2 else 1005
                return Message(CLOSE, piece[2:], code)
            if opcode in (PING, PONG):  # may come between the frames of a message
                return Message(opcode, piece)
            if (opcode == CONTINUATION) != bool(self._kind) or opcode > BINARY:
                raise HTTPException("a websocket frame out of turn")
            self._kind = self._kind or opcode
            self._pieces += piece
            if last:
                message = Message(self._kind, bytes(self._pieces))
                self._kind, self._pieces = 0, bytearray()
                return message

    def _frame(self, most: int) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        if first & 0x70 or second & 0x80:
            raise HTTPException("a websocket frame that no server sends")
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(self._read(2))
        elif size == 127:
            size = int.from_bytes(self._read(8))
        if size > most:
            raise HTTPException("a websocket message that is too long")
        return bool(first & 0x80), first & 0x0F, self._read(size)

    def _read(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise HTTPException("the server hung up")
        return data


def _shake_hands(connection: HTTPConnection, path: str, headers: dict[str, str]) -> BinaryIO:
    """What comes after the server's agreement, to be read from."""
    key = base64.b64encode(os.urandom(16))
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": key.decode(),
        "Sec-WebSocket-Version": "13",
    }
    connection.request("GET", path, headers=headers | upgrade)
    # Not getresponse(): it takes bytes of the first frames into a buffer that it throws away.
    file = connection.sock.makefile("rb")
    status = file.readline(4096)
    if len(fields := status.split(None, 2)) < 2 or fields[1] != b"101":
        raise HTTPException(f"it answers “{status.decode('latin-1').strip()[:80]}” to a websocket")
    accept = b""
    while line := file.readline(16384).strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-accept":
            accept = value.strip()
    # The digest that the protocol wants; it keeps no secret.
    if accept != base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()):
        raise HTTPException("what answers there is no websocket")
    return file


def _masked(data: bytes, mask: bytes) -> bytes:
    """``data`` XOR the mask again and again, as one large number: 100 times a loop's speed."""
    repeated = mask * (len(data) // 4 + 1)
    number = int.from_bytes(data) ^ int.from_bytes(repeated[: len(data)])
    return number.to_bytes(len(data))
