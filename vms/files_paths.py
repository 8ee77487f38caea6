"""Paths of guests on their way through addresses and JSON.

A path may hold any bytes. In this process they are texts in which bytes that are no UTF-8 are lone
surrogates, as ``os.fsdecode`` makes them; outside they are percent-encoded.
"""

from __future__ import annotations

import posixpath
from urllib.parse import parse_qsl, quote

from django.http import HttpRequest


def path_of(request: HttpRequest, key: str = "path", default: str = "") -> str:
    """``?path=`` with the bytes that are no UTF-8, which Django replaces."""
    pairs = parse_qsl(request.META.get("QUERY_STRING", ""), errors="surrogateescape")
    return dict(pairs).get(key) or default


def encoded(path: str) -> str:
    """The path for addresses and JSON."""
    return quote(path.encode("utf-8", "surrogateescape"))


def inside(directory: str, name: str) -> str:
    """The path of ``name`` in ``directory``."""
    return posixpath.join(directory, name)


def cleaned(path: str) -> str:
    """The path without ``.``, ``..`` and doubled slashes, for pages: links count as directories."""
    return "/" + posixpath.normpath(f"/{path}").lstrip("/")
