"""The JSON at the start of a stream: four bytes of length, big endian, then an object."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from guest_agent.streams import ByteStream
from guest_agent.yamux import ProtocolError

MAX_HEADER = 64 * 1024


def encode_header(header: dict[str, Any], most: int = MAX_HEADER) -> bytes:
    """The bytes of a header; ``ValueError`` when it is longer than the other end takes."""
    text = _ENCODER.encode(header).encode()
    if len(text) > most:
        raise ValueError(f"the header has {len(text)} bytes, more than {most}")
    return len(text).to_bytes(4) + text


async def read_header(stream: ByteStream) -> dict[str, Any]:
    """The next header of the stream; ``ProtocolError`` when it is none."""
    length = int.from_bytes(await stream.read_exactly(4))
    if length > MAX_HEADER:
        raise ProtocolError(f"it sent a header of {length} bytes")
    return decode_header(await stream.read_exactly(length))


async def read_records(stream: ByteStream, most: int) -> list[dict[str, Any]]:
    """Header after header until the guest's half-close; ``ProtocolError`` beyond ``most``."""
    records: list[dict[str, Any]] = []
    while first := await stream.read(1):
        if len(records) == most:
            raise ProtocolError(f"it sent more than {most} records")
        length = int.from_bytes(first + await stream.read_exactly(3))
        if length > MAX_HEADER:
            raise ProtocolError(f"it sent a record of {length} bytes")
        records.append(decode_header(await stream.read_exactly(length)))
    return records


def decode_header(text: bytes) -> dict[str, Any]:
    """The object; ``ProtocolError`` for anything else, however it is nested or spelled."""
    try:
        header = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        raise ProtocolError("it sent a header that is not JSON") from None
    if not isinstance(header, dict):
        raise ProtocolError("it sent a header that is no object")
    return header


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)


# Made once: with options, json.dumps and json.loads make new ones for every call.
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse)
