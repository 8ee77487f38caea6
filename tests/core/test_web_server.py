"""What the web server promises: nothing grows, ends are told, nothing is let in unbounded."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nexus_site import web
from nexus_site.core.streaming import BODY
from nexus_site.daemon import STOP_TIMEOUT
from nexus_site.incoming import Incoming

PIECE = 64 * 1024
MIB = 1 << 20
MOST = 24 * MIB  # what sockets of the kernel and buffers may hold between both ends
PATIENCE = 60
UPLOAD = "/v1/vms/x/files/content"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Site:
    """An ASGI application that does one thing, and what it has seen."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer
        self.count = 0
        self.seen: list[Any] = []
        self.go_on = threading.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        await self._answer(self, scope, receive, send)

    async def until_told(self) -> None:
        await asyncio.to_thread(self.go_on.wait, PATIENCE)


@contextlib.contextmanager
def served(site: Any, *, host: str = "127.0.0.1") -> Iterator[int]:
    """The port on which ``site`` is served."""
    server = web.server(site)
    listener = web.listen(host, 0)
    port = listener.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive(), "it did not stop"


@contextlib.contextmanager
def connected(port: int, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(data)
        yield client


@contextlib.contextmanager
def asked(port: int, method: str = "GET", path: str = "/", **more: Any) -> Iterator[Any]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, PATIENCE)) as client:
        client.request(method, path, **more)
        yield client.getresponse()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def settled(look: Callable[[], int]) -> int:
    """What ``look`` gives when it grows no more."""
    last = -1
    while last != (last := look()) or not last:
        time.sleep(0.5)
    return last


def push(client: socket.socket, data: bytes, most: int) -> int:
    """How many bytes the other end takes of ``data`` again and again, up to ``most``."""
    client.settimeout(1)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < most:
            sent += client.send(data)
    client.settimeout(PATIENCE)
    return sent


async def begin(send: Any, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def end(send: Any, body: bytes = b"") -> None:
    await send({"type": "http.response.body", "body": body})


async def answers(site: Site, scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked."""
    site.seen.append(scope)
    await begin(send, headers=[(b"content-length", b"%d" % len(scope["path"]))])
    await end(send, scope["path"].encode())


# Nothing grows


async def makes_much(site: Site, scope: Any, receive: Any, send: Any) -> None:
    await begin(send)
    while site.count < 128 * MIB:
        await send({"type": "http.response.body", "body": bytes(PIECE), "more_body": True})
        site.count += PIECE
    await end(send)


def test_what_a_client_does_not_read_is_not_made() -> None:
    site = Site(makes_much)
    with served(site) as port, asked(port) as response:
        assert settled(lambda: site.count) < MOST
        assert len(response.read()) == 128 * MIB


async def says_much(site: Site, scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while site.count < 128 * MIB:
        await send({"type": "websocket.send", "bytes": bytes(PIECE)})
        site.count += PIECE


def test_what_a_websocket_does_not_read_is_not_sent() -> None:
    site = Site(says_much)
    with served(site) as port, connected(port, UPGRADE):
        assert settled(lambda: site.count) < MOST


async def listens_late(site: Site, scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await site.until_told()
    while "bytes" in (message := await receive()):
        site.count += len(message["bytes"])


def test_what_is_not_taken_of_a_websocket_stops_its_client() -> None:
    site = Site(listens_late)
    frame = b"\x82\xff" + PIECE.to_bytes(8) + bytes(4) + bytes(PIECE)
    with served(site) as port, connected(port, UPGRADE) as client:
        client.recv(PIECE)
        sent = push(client, frame, 128 * MIB)
        assert sent < MOST
        site.go_on.set()
        until(lambda: site.count >= sent // len(frame) * PIECE)


async def takes_late(site: Site, scope: Any, receive: Any, send: Any) -> None:
    async for data in scope[BODY]:
        site.count += len(data)
        await site.until_told()
    await begin(send, headers=[(b"content-length", b"4")])
    await end(send, b"done")


def test_an_upload_is_taken_while_it_comes_and_no_faster() -> None:
    site = Site(takes_late)
    size = 128 * MIB
    head = b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (UPLOAD.encode(), size)
    with served(Incoming(site)) as port, connected(port, head + bytes(PIECE)) as client:
        until(lambda: site.count)
        sent = push(client, bytes(PIECE), size - PIECE)
        assert sent < MOST
        site.go_on.set()
        rest = size - PIECE - sent
        client.sendall(bytes(rest))
        assert client.recv(PIECE).endswith(b"done")
    assert site.count == size


# Ends are told


async def breaks_off(site: Site, scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/fine":
        await answers(site, scope, receive, send)
        return
    headers = [(b"content-length", b"9999")] if scope["path"] == "/sized" else []
    await begin(send, headers=headers)
    await send({"type": "http.response.body", "body": b"beginning", "more_body": True})
    raise OSError("the disk is gone")


@pytest.mark.parametrize("path", ["/sized", "/chunked"])
def test_an_answer_that_fails_ends_its_connection_alone(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with served(Site(breaks_off)) as port:
        with asked(port, path=path) as response, pytest.raises(http.client.IncompleteRead):
            response.read()
        with asked(port, path="/fine") as response:
            assert response.read() == b"/fine"
    assert "the disk is gone" in caplog.text


async def waits(site: Site, scope: Any, receive: Any, send: Any) -> None:
    await receive()
    site.count += 1
    site.seen.append((await receive())["type"])


def test_a_client_that_hangs_up_is_noticed() -> None:
    site = Site(waits)
    with served(site) as port:
        with connected(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            until(lambda: site.count)
        until(lambda: site.seen)
    assert site.seen == ["http.disconnect"]


async def uploads(site: Site, scope: Any, receive: Any, send: Any) -> None:
    site.count += 1
    try:
        async for data in scope[BODY]:
            site.count += len(data)
    except Exception as error:
        site.seen += [error, (await receive())["body"], await receive()]
        raise asyncio.CancelledError from None


def test_an_upload_that_breaks_off_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(uploads)
    head = b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n123" % UPLOAD.encode()
    with served(Incoming(site)) as port:
        with connected(port, head):
            until(lambda: site.count == 4)
        until(lambda: site.seen)
    error, body, last = site.seen
    assert error.code == "upload-broken"
    assert (body, last["type"]) == (b"", "http.disconnect")


async def refuses(site: Site, scope: Any, receive: Any, send: Any) -> None:
    await begin(send, 401, [(b"content-length", b"2")])
    await end(send, b"no")


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_a_refusal_reaches_who_is_still_sending(connection: str) -> None:
    headers = {"Connection": connection}
    with (
        served(Incoming(Site(refuses))) as port,
        asked(port, "PUT", UPLOAD, body=bytes(16 * MIB), headers=headers) as response,
    ):
        assert (response.status, response.read()) == (401, b"no")
        assert response.headers["Connection"] == "close", "what follows is no request"


async def never_ends(site: Site, scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        site.count += 1
        while True:  # as a terminal would that does not listen
            await receive()
    await begin(send, headers=[(b"content-type", b"text/event-stream")])
    site.count += 1
    while True:
        await send({"type": "http.response.body", "body": b": alive\n\n", "more_body": True})
        await asyncio.sleep(0.05)


def test_a_stop_waits_for_no_stream() -> None:
    assert web.GRACE + 3 < STOP_TIMEOUT
    site = Site(never_ends)
    clients = contextlib.ExitStack()  # which hang up only when the server has stopped
    with clients, served(site) as port:
        for data in (UPGRADE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTT", b""):
            clients.enter_context(connected(port, data))
        until(lambda: site.count == 2)


# Nothing is let in unbounded


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"GET /", b"a" * PIECE),
        (HEAD + b"X: ", b"a" * PIECE),
        (HEAD, b"X: y\r\n" * 10_000),
        (HEAD + b"\r\n1\r\nx\r\n0\r\n", b"X: y\r\n" * 10_000),
        (HEAD + b"\r\n1\r\nx\r\n1;", b"a" * PIECE),
    ],
    ids=["path", "header", "headers", "trailers", "chunk extension"],
)
def test_a_head_is_not_too_long(begins: bytes, goes_on: bytes) -> None:
    closed = contextlib.suppress(ConnectionError)
    with served(Site(waits)) as port, connected(port, begins) as client, closed:
        assert push(client, goes_on, 128 * MIB) < MOST
        assert client.recv(PIECE).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "begins",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /"],
    ids=["nothing", "half", "half of the second"],
)
def test_a_head_does_not_take_for_ever(begins: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD_PATIENCE", 0.2)
    ended = contextlib.suppress(ConnectionResetError)
    with served(Site(answers)) as port, connected(port, begins) as client, ended:
        while client.recv(PIECE):
            pass


def test_what_comes_after_its_head_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD_PATIENCE", 0.2)
    site = Site(uploads)
    head = b"PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n" % UPLOAD.encode()
    with served(Incoming(site)) as port, connected(port, head) as client:
        for _ in range(5):
            time.sleep(0.2)
            client.sendall(b"x")
        until(lambda: site.count == 6)


def test_a_message_is_not_too_long() -> None:
    site = Site(listens_late)
    site.go_on.set()
    frame = b"\x82\xff" + (web.MAX_MESSAGE + 1).to_bytes(8) + bytes(4)
    with served(site) as port, connected(port, UPGRADE) as client:
        client.recv(PIECE)
        client.sendall(frame)
        assert client.recv(PIECE)[2:4] == (1009).to_bytes(2)


def test_nobody_is_believed_who_says_where_he_comes_from() -> None:
    site = Site(answers)
    claims = {"X-Forwarded-For": "10.9.8.7", "X-Forwarded-Proto": "https"}
    with served(site) as port, asked(port, headers=claims) as response:
        assert "Server" not in response.headers
    assert site.seen[0]["client"][0] == "127.0.0.1"
    assert site.seen[0]["scheme"] == "http"


# Connections


def test_requests_on_one_connection_are_answered_in_turn() -> None:
    both = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in (1, 2))
    with served(Site(answers)) as port, connected(port, both) as client:
        got = b""
        while got.count(b"HTTP/1.1 200 OK") < 2 or not got.endswith(b"/2"):
            data = client.recv(PIECE)
            assert data, got
            got += data
        assert got.index(b"/1") < got.index(b"/2")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_all_addresses_are_those_of_ipv4_too() -> None:
    with served(Site(answers), host="::") as port:
        for address in ("::1", "127.0.0.1"):
            with socket.create_connection((address, port), timeout=PATIENCE):
                pass
