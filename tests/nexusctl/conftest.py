"""A server with canned answers on a real socket, and ``nexusctl`` run against it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from nexus_site.core import auth, operations
from nexus_site.core.ids import decode
from nexus_site.core.models import Token
from nexusctl import formatting
from nexusctl.main import main

Answer = Any  # a JSON value, or (status, JSON value), or raw bytes


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]


@dataclass
class CannedServer:
    """Answers each route with the next of its answers; the last one for ever."""

    url: str = ""
    routes: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self.routes[method, f"/v1{path}"] = list(answers)

    def answer(self, request: Seen) -> Answer:
        self.seen.append(request)
        answers = self.routes.get((request.method, request.path))
        if answers is None:
            return 404, {"detail": f"no canned answer for {request.method} {request.path}"}
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def asked(self, method: str, path: str) -> list[Seen]:
        return [s for s in self.seen if (s.method, s.path) == (method, f"/v1{path}")]


class Handler(BaseHTTPRequestHandler):
    canned: CannedServer

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.canned.answer(
            Seen(
                self.command,
                parts.path,
                dict(parse_qsl(parts.query)),
                json.loads(content) if content else None,
                {name.lower(): value for name, value in self.headers.items()},
            )
        )
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[CannedServer]:
    canned = CannedServer()
    handler = type("BoundHandler", (Handler,), {"canned": canned})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        canned.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield canned
        http.shutdown()
        thread.join()


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def nexusctl(
    server: CannedServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., Outcome]:
    """Runs a command line against the canned server at noon of a fixed day."""
    monkeypatch.setenv("NEXUS_URL", server.url)
    monkeypatch.setenv("NEXUS_TOKEN", "nxt_test")
    monkeypatch.setenv("NEXUS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(formatting, "now", lambda: datetime(2026, 7, 29, 12, tzinfo=UTC))

    def run(*arguments: str) -> Outcome:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def ctl(
    transactional_db: None,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: Any,
    tmp_path: Path,
) -> Callable[..., Outcome]:
    """``nexusctl`` with the token file of a server that runs here."""
    Path(settings.STATIC_ROOT).mkdir(exist_ok=True)
    live_server = request.getfixturevalue("live_server")
    monkeypatch.setattr(operations, "_nudge", lambda ref: operations.execute(decode(ref)))
    _, secret = auth.create_token("nexusctl", Token.Scope.ADMIN)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/nexusd.json").write_text(json.dumps({"url": live_server.url}))
    (tmp_path / "token").write_text(f"{secret}\n")
    monkeypatch.setenv("NEXUS_DATA_DIR", str(tmp_path))
    for name in ("NEXUS_URL", "NEXUS_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Outcome:
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
