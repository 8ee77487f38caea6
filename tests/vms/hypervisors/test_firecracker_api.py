"""Firecracker's API socket: the real one, and ones in the hands of a guest."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken, Conflict, Retryable
from vms.hypervisors.firecracker import FirecrackerBinary, api, hostile
from vms.hypervisors.firecracker.api import Request, ask

VERSION = Request("GET", "/version")
PATIENCE = 60.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A place whose path is longer than a socket's address may be."""
    root = tmp_path / ("x" * 120)
    root.mkdir()
    return root


@pytest.fixture
def vmm(root: Path, firecracker: FirecrackerBinary) -> Iterator[Path]:
    """The real Firecracker, waiting for its configuration; the root of its place."""
    with subprocess.Popen(
        [firecracker.path, "--api-sock", api.SOCKET],
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(Retryable):
                ask(root, VERSION)
                break
            time.sleep(0.01)
        yield root
        process.kill()


def test_answers_come_in_order(vmm: Path, firecracker: FirecrackerBinary) -> None:
    machine = {"vcpu_count": 2, "mem_size_mib": 256}
    version, nothing, config = ask(
        vmm,
        VERSION,
        Request("PUT", "/machine-config", machine),
        Request("GET", "/machine-config"),
    )
    assert version == {"firecracker_version": firecracker.version}
    assert nothing is None
    assert machine.items() <= config.items()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            Request("PUT", "/machine-config", {"vcpu_count": 0, "mem_size_mib": 128}),
            "The number of vCPUs must be greater than 0",
        ),
        (Request("PUT", "/boot-source", {"kernel_image_path": "/none"}), "No such file"),
        (Request("PUT", "/machine-config", {"vcpus": 1}), "unknown field"),
        (Request("GET", "/none"), "Invalid request method and/or path"),
        (Request("PATCH", "/vm", {"state": "Paused"}), "not supported before starting"),
    ],
)
def test_refusals_come_in_its_own_words(vmm: Path, request_: Request, words: str) -> None:
    with pytest.raises(Conflict, match="Firecracker refuses") as caught:
        ask(vmm, request_)
    assert words in caught.value.detail
    assert caught.value.code == "firecracker-refused"
    assert request_.path in caught.value.text


def test_a_refusal_ends_the_conversation(vmm: Path) -> None:
    with pytest.raises(Conflict):
        ask(vmm, Request("GET", "/none"), Request("PUT", "/balloon", {"amount_mib": 0}))
    assert ask(vmm, Request("GET", "/vm/config"))[0]["balloon"] is None


def test_nobody_is_there(root: Path) -> None:
    for place in (root, root / "none"):
        with pytest.raises(Retryable, match="does not answer") as caught:
            ask(place, VERSION)
        assert caught.value.code == "firecracker-no-answer"


def test_nobody_listens_any_more(root: Path) -> None:
    with listening(root, lambda connection: None):
        pass
    with pytest.raises(Retryable, match="does not answer"):
        ask(root, VERSION)


def test_what_is_no_socket_is_not_talked_to(root: Path) -> None:
    (root / api.SOCKET).symlink_to("/run/another.sock")
    with pytest.raises(Broken) as caught:
        ask(root, VERSION)
    assert caught.value.code == "hostile-vmm"


@contextmanager
def listening(root: Path, talk: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server in place of the VMM; `talk` has each connection once something was said."""
    with socket.socket(socket.AF_UNIX) as listener:
        with hostile.directory(root) as directory:
            listener.bind(f"/proc/self/fd/{directory}/{api.SOCKET}")
        listener.listen()
        stop = threading.Event()

        def serve() -> None:
            with suppress(OSError):
                while not stop.is_set():
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        talk(connection)

        server = threading.Thread(target=serve)
        server.start()
        try:
            yield
        finally:
            stop.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            server.join(PATIENCE)


def answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def trickle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")


def endless_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Header: " + b"x" * 1000 + b"\r\n")


@pytest.mark.parametrize(
    "talk",
    [
        pytest.param(trickle, id="trickle"),
        pytest.param(flood, id="flood"),
        pytest.param(endless_headers, id="endless-headers"),
        pytest.param(lambda connection: time.sleep(1), id="silence"),
        pytest.param(lambda connection: None, id="hangs-up"),
        pytest.param(
            lambda connection: connection.sendall(b"\x16\x03\x01 junk\r\n\r\n"), id="junk"
        ),
        pytest.param(
            lambda connection: connection.sendall(answer("200 OK", b"no json")), id="no-json"
        ),
        pytest.param(
            lambda connection: connection.sendall(answer("200 OK", b"[" * 100_000)), id="nested"
        ),
    ],
)
def test_a_hostile_vmm_costs_a_bounded_time(
    root: Path, talk: Callable[[socket.socket], None]
) -> None:
    with listening(root, talk), pytest.raises(Retryable) as caught:
        ask(root, VERSION, timeout=0.5)
    assert caught.value.code == "firecracker-no-answer"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"fault_message": "first\\u001b[31m\\nsecond\\u0007"}', "first [31m\nsecond "),
        (b'{"fault_message": 5}', "5"),
        (b'{"error": "bad request"}', "bad request"),
        (b"not json \xff", "not json \N{REPLACEMENT CHARACTER}"),
        (b'"text"', '"text"'),
        (b"[" * 5000, "[" * api.MAX_FAULT),
        (b'{"fault_message": "' + b"x" * 5000 + b'"}', "x" * api.MAX_FAULT),
    ],
    ids=["control-characters", "number", "other-key", "no-json", "no-object", "nested", "long"],
)
def test_its_words_are_fit_for_people(root: Path, body: bytes, said: str) -> None:
    refusal = answer("400 Bad Request", body)
    with (
        listening(root, lambda connection: connection.sendall(refusal)),
        pytest.raises(Conflict) as caught,
    ):
        ask(root, VERSION)
    assert caught.value.detail == said
