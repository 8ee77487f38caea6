"""Fields of what a guest tells, each checked as it is read.

Numbers lie in their bounds, texts have no control or formatting characters and are cut to their
limits. A field of a wrong type is a ``ProtocolError``; a text that is missing is empty.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from typing import Any

from guest_agent.yamux import ProtocolError

MAX_SECONDS = 2.0**40
MAX_BYTES = 2**63 - 1
MAX_FILE_SYSTEMS = 1024
MAX_TEXT, MAX_PATH = 128, 512

Fields = Mapping[str, Any]


def text_field(fields: Fields, key: str, limit: int = MAX_TEXT) -> str:
    """The text ``key`` without characters that could disturb a page or a terminal."""
    value = fields.get(key) or ""
    if not isinstance(value, str):
        raise ProtocolError(f"{key} is not a text")
    printable = (c for c in value[: 4 * limit] if not unicodedata.category(c).startswith("C"))
    return "".join(printable)[:limit].strip()


def number_field(fields: Fields, key: str, highest: float) -> float:
    """The number ``key``, from 0 to ``highest``."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError(f"{key} is not a number")
    if not (0 <= value <= highest and math.isfinite(value)):
        raise ProtocolError(f"{key} is out of its bounds")
    return value


def paths_field(fields: Fields, key: str) -> list[str]:
    """The list of paths ``key``, fit to be shown."""
    paths = list_field(fields, key, MAX_FILE_SYSTEMS)
    return [text_field({key: path}, key, MAX_PATH) for path in paths]


def object_field(fields: Fields, key: str) -> Fields:
    value = fields.get(key)
    if not isinstance(value, dict):
        raise ProtocolError(f"{key} is not an object")
    return value


def list_field(fields: Fields, key: str, most: int) -> list[Any]:
    value = fields.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise ProtocolError(f"{key} is not a list of at most {most}")
    return value


def bytes_field(fields: Fields, key: str) -> int:
    """The number of bytes, or of other things, ``key``."""
    return int(number_field(fields, key, MAX_BYTES))
