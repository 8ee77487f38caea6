"""The HTTP client of the API.

It stands on ``http.client``: a command line starts for every call, and loading a larger
library takes longer than most calls do.
"""

from __future__ import annotations

import json
import select
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from nexusctl import __version__
from nexusctl.errors import Failure, Unreachable
from nexusctl.server import Server
from nexusctl.websocket import Websocket

CONNECT_PATIENCE = 5.0  # seconds to connect
TRANSFER_PATIENCE = 300.0  # seconds without a byte of a file, in either direction
PAGE = 200
PIECE = 1 << 20

YAML = "application/yaml"

Query = dict[str, Any]
JSON = Any


class Sent(NamedTuple):
    """The body of a request; a file or its pieces are read as they are sent, of ``size`` bytes or
    to the end."""

    content: bytes | BinaryIO | Iterable[bytes]
    type: str
    size: int | None = None


class Client:
    """Calls one server's API under ``/v1``; raises ``Failure`` for whatever is not an answer."""

    def __init__(self, server: Server) -> None:
        self._server = server
        parts = urlsplit(server.url)
        self._connection_class = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._host, self._port, self._base = parts.hostname or "", parts.port, parts.path

    def get(self, path: str, /, **query: Any) -> JSON:
        """The answer to a GET; a ``wait`` in ``query`` adds to the patience."""
        return self.call("GET", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: JSON = None,
        document: str | None = None,
    ) -> JSON:
        """The answer as parsed JSON; None when it has no content.

        What is sent is ``body`` as JSON or ``document``, which is YAML.
        """
        patience = self._server.patience + float((query or {}).get("wait") or 0)
        sent = Sent(document.encode(), YAML) if document is not None else _as_json(body)
        with self._open(method, path, query or {}, sent, patience) as response:
            content = response.read()
        try:
            return json.loads(content) if content else None
        except ValueError as error:
            raise Unreachable(self._server.url, "somebody else answers there") from error

    def run(self, path: str, body: JSON) -> JSON:
        """The answer to a POST that comes whenever what it runs has ended."""
        with self._open("POST", path, {}, _as_json(body), None) as response:
            return json.loads(response.read())

    def text(self, path: str, /, **query: Any) -> str:
        """The answer to a GET of something that is no JSON."""
        with self._open("GET", path, query, None, self._server.patience) as response:
            return response.read().decode()

    def upload(self, path: str, source: BinaryIO, size: int | None, /, **query: Any) -> JSON:
        """The answer to a POST of ``size`` bytes of ``source`` (None: all until its end)."""
        sent = Sent(source, "application/octet-stream", size)
        with self._open("POST", path, query, sent, TRANSFER_PATIENCE) as response:
            return json.loads(response.read())

    def download(self, path: str, sink: BinaryIO, /, **query: Any) -> int:
        """Write the answer to a GET to ``sink``; how many bytes that were."""
        done = 0
        with self._open("GET", path, query, None, TRANSFER_PATIENCE) as response:
            while piece := response.read(PIECE):
                done += sink.write(piece)
            if response.length:  # http.client itself says so of chunked answers only
                raise IncompleteRead(b"", response.length)
        return done

    @contextmanager
    def reading(self, path: str, /, **query: Any) -> Iterator[HTTPResponse]:
        """The answer to a GET, to be read as it comes."""
        with self._open("GET", path, query, None, TRANSFER_PATIENCE) as response:
            yield response

    def put(self, path: str, pieces: Iterable[bytes], size: int | None, /, **query: Any) -> JSON:
        """The answer to a PUT of ``pieces``, ``size`` bytes together (None: nobody knows)."""
        sent = Sent(pieces, "application/octet-stream", size)
        with self._open("PUT", path, query, sent, TRANSFER_PATIENCE) as response:
            return json.loads(response.read())

    def pages(self, path: str, /, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        cursor = ""
        while cursor is not None:
            page = self.get(path, limit=PAGE, cursor=cursor, **query)
            yield from page["items"]
            cursor = page["next_cursor"]

    def events(self, after: int) -> Iterator[dict[str, Any]]:
        """Events after number ``after`` as they come, until the stream ends."""
        with self._open(
            "GET", "/events/stream", {"after": after}, None, self._server.patience
        ) as response:
            for line in response:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    @contextmanager
    def websocket(self, path: str) -> Iterator[Websocket]:
        """A socket of the server, at ``path`` under ``/ws``; closed after the block."""
        connection = self._connection_class(self._host, self._port, timeout=CONNECT_PATIENCE)
        with closing(connection):
            with self._unreachable():
                connection.connect()
                connection.sock.settimeout(self._server.patience)
                target = f"{self._base}/ws{quote(path)}"
                socket = Websocket(connection, target, self._headers(None))
                connection.sock.settimeout(None)  # a program may be silent for hours
            yield socket

    @contextmanager
    def _open(
        self, method: str, path: str, query: Query, sent: Sent | None, patience: float | None
    ) -> Iterator[HTTPResponse]:
        """The response to a request, its status checked; its connection is closed after."""
        connection = self._connection_class(self._host, self._port, timeout=CONNECT_PATIENCE)
        with closing(connection), self._unreachable():
            connection.connect()
            connection.sock.settimeout(patience)
            _send(
                connection,
                method,
                f"{self._base}/v1{quote(path)}{_query_string(query)}",
                sent.content if sent else None,
                self._headers(sent),
            )
            with connection.getresponse() as response:
                if response.status >= 400:
                    raise Failure.of_problem(response.status, _problem(response.read()))
                yield response

    @contextmanager
    def _unreachable(self) -> Iterator[None]:
        """Whatever breaks the connection, at any time, is ``Unreachable``."""
        try:
            yield
        except (OSError, HTTPException) as error:
            began = isinstance(error, IncompleteRead)
            raise Unreachable(self._server.url, _reason(error), began=began) from error

    @property
    def url(self) -> str:
        return self._server.url

    def _headers(self, sent: Sent | None) -> dict[str, str]:
        headers = {
            "Authorization": f"Bearer {self._server.token}",
            "User-Agent": f"nexusctl/{__version__}",
            "Connection": "close",
        }
        if sent:
            headers["Content-Type"] = sent.type
            if sent.size is not None:
                headers["Content-Length"] = str(sent.size)
        return headers


class _AnsweredEarly(Exception):
    """The server has said something before it has all."""


def _send(
    connection: HTTPConnection,
    method: str,
    target: str,
    content: Any,
    headers: dict[str, str],
) -> None:
    """Send a request. A server that refuses what is still coming is listened to at once."""
    if content is not None and not isinstance(content, bytes) and not hasattr(content, "read"):
        content = _until_answered(connection, content)
    try:
        connection.request(method, target, body=content, headers=headers)
    except _AnsweredEarly:
        pass
    except ConnectionError:
        if not _answered(connection):
            raise


def _until_answered(connection: HTTPConnection, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if _answered(connection):
            raise _AnsweredEarly
        yield piece


def _answered(connection: HTTPConnection) -> bool:
    return bool(select.select([connection.sock], [], [], 0)[0])


def _as_json(body: JSON) -> Sent | None:
    return None if body is None else Sent(json.dumps(body).encode(), "application/json")


def _query_string(query: Query) -> str:
    given = {name: _plain(value) for name, value in query.items() if value not in (None, "")}
    return f"?{urlencode(given, errors='surrogateescape')}" if given else ""


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _problem(content: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
