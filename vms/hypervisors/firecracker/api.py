"""Firecracker's API socket: short conversations in HTTP, bounded in time and size.

The VMM that answers may be in the hands of its guest, so it is believed no more than a guest.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore2

from nexus_site.core.errors import Broken, Conflict, Retryable
from vms.hypervisors.firecracker import hostile

SOCKET = "api.sock"
ANSWER_SECONDS = 60.0
MAX_ANSWER = 256 * 1024
MAX_FAULT = 2000
ORIGIN = httpcore2.Origin(b"http", b"localhost", 80)


@dataclass(frozen=True)
class Request:
    """One call: `body`, where there is one, goes as JSON."""

    method: str
    path: str
    body: dict[str, Any] | None = None


def ask(root: Path, *requests: Request, timeout: float = ANSWER_SECONDS) -> list[Any]:
    """Make the calls in their order on one connection; what each answered, None for nothing.

    `root` is the directory with the VMM's socket. Raises Conflict (code "firecracker-refused",
    its own words as detail) at the first call that is refused, and Retryable when the VMM
    cannot be reached, answers nonsense, or takes over `timeout` seconds for all of them; Broken
    (code "hostile-vmm") when its socket is none.
    """
    try:
        with httpcore2.HTTP11Connection(ORIGIN, _Stream(root, timeout)) as connection:
            return [_call(connection, request) for request in requests]
    except (OSError, ValueError, RecursionError, httpcore2.ProtocolError) as error:
        raise Retryable(
            "Firecracker does not answer on its API socket.",
            detail=f"{type(error).__name__}: {error}",
            code="firecracker-no-answer",
        ) from error


@contextmanager
def understood() -> Iterator[None]:
    """Within, an answer that has another form than it should is Broken (code "hostile-vmm")."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(
            "Firecracker's answer makes no sense.",
            detail=f"{type(error).__name__}: {error}",
            hint="Kill the VM and do not trust its drives: its guest may have broken out of it.",
            code="hostile-vmm",
        ) from error


def _call(connection: httpcore2.HTTP11Connection, request: Request) -> Any:
    content = None if request.body is None else json.dumps(request.body).encode()
    headers: dict[bytes | str, bytes | str] = {"Host": "localhost", "Accept": "application/json"}
    if content is not None:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    sent = httpcore2.Request(
        request.method, f"http://localhost{request.path}", headers=headers, content=content
    )
    response = connection.handle_request(sent)
    try:
        answer = _bounded(response.iter_stream())
    finally:
        response.close()
    if response.status >= 300:
        raise Conflict(
            f"Firecracker refuses {request.method} {request.path}.",
            detail=_fault(answer),
            code="firecracker-refused",
        )
    return json.loads(answer) if answer else None


def _bounded(chunks: Iterable[bytes]) -> bytes:
    answer = b""
    for chunk in chunks:
        answer += chunk
        if len(answer) > MAX_ANSWER:
            raise ValueError(f"the answer is longer than {MAX_ANSWER} bytes")
    return answer


def _fault(answer: bytes) -> str:
    """The VMM's own words for people: its fault_message, without control characters."""
    text = answer.decode(errors="replace")
    try:
        said = json.loads(text)
        text = str(said.get("fault_message") or said.get("error") or text)
    except (ValueError, RecursionError, AttributeError):
        pass  # not what it should be: so it is
    return "".join(one if one.isprintable() or one == "\n" else " " for one in text)[:MAX_FAULT]


class _Stream(httpcore2.NetworkStream):
    """A connection to the VMM's socket that has `timeout` seconds for all it does."""

    def __init__(self, root: Path, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._bound()
            with hostile.socket_path(root, SOCKET) as path:
                self._socket.connect(path)
        except BaseException:
            self.close()
            raise

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._bound()
        return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer:  # a VMM that has answered already may have hung up
            self._bound()
            self._socket.sendall(buffer)

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        raise NotImplementedError

    def get_extra_info(self, info: str) -> Any:
        return None

    def _bound(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        self._socket.settimeout(left)
