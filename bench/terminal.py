"""How long a key's echo takes: ``./nexus bench terminal [-n 200]``.

Keys are typed one by one into a terminal of one VM, over the websocket that a page uses, and each
waits for its echo: (a) while nothing else happens, (b) while another session of the same VM writes
as much as it can and a process of its own reads all of it. Target: p95 of (b) ≤ 50 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from multiprocessing import Process, Value
from typing import Any
from urllib.parse import urlsplit

from bench.server import Server, running_server
from nexusctl.websocket import BINARY, TEXT, Websocket

TIMEOUT = 300
WARM_UP = 10  # keys
PAUSE = 0.02  # seconds between two keys
TARGET = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(prog="./nexus bench terminal", description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="keys (200)")
    count = parser.parse_args().n
    with running_server() as server:
        server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "bench", "--memory", "256")
        print(f"accelerator {server.get('/v1/vms/bench/boots')['items'][0]['accelerator']}")
        token = (server.data_dir / "token").read_text().strip()
        _wait_until_settled(server)
        keys = _look(server.url, token, "keys", ["cat"])
        quiet = _echoes(keys, count)
        with _flood(server.url, token) as taken:
            began, before = time.monotonic(), taken.value
            busy = _echoes(keys, count)
            rate = (taken.value - before) / (time.monotonic() - began)
    _report(quiet, busy, rate)


def _wait_until_settled(server: Server) -> None:
    """A guest whose init has hardly begun has no terminals yet, and its boot takes its CPU."""
    argv = ["sh", "-c", "until test -c /dev/pts/ptmx && pidof getty; do sleep 0.5; done"]
    server.post("/v1/vms/bench/exec", argv=argv, timeout=TIMEOUT / 4)


def _look(url: str, token: str, session: str, argv: list[str]) -> Websocket:
    """A look at a session, which is begun where there is none."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    path = f"/ws/vms/bench/sessions/{session}"
    socket = Websocket(connection, path, {"Authorization": f"Bearer {token}"})
    wish = {"offset": 0, "rows": 24, "cols": 80, "start": {"argv": argv}}
    socket.send(TEXT, json.dumps(wish).encode())
    while (message := socket.receive()).kind != TEXT:
        pass
    if json.loads(message.data)["type"] != "attached":
        raise SystemExit(message.data.decode())
    return socket


def _echoes(socket: Websocket, count: int) -> list[float]:
    """Seconds from each key to its echo by the terminal; the first keys only warm up."""
    took = []
    for number in range(count + WARM_UP):
        key = b"abcdefghij"[number % 10 : number % 10 + 1]
        began = time.perf_counter()
        socket.send(BINARY, key)
        while (message := socket.receive()).kind != BINARY or key not in message.data[1:]:
            pass
        took.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    socket.send(BINARY, b"\n")
    while socket.receive().data[-2:] != b"\r\n":  # and cat says it again
        pass
    return took[WARM_UP:]


@contextmanager
def _flood(url: str, token: str) -> Iterator[Any]:
    """A session that writes without end, and who reads it; gives how many bytes were read."""
    taken = Value("Q", 0)
    reader = Process(target=_drink, args=(url, token, taken), daemon=True)
    reader.start()
    while taken.value < 1 << 20 and reader.is_alive():
        time.sleep(0.05)
    if not reader.is_alive():
        raise SystemExit("nothing floods")
    try:
        yield taken
    finally:
        reader.terminate()
        reader.join()


def _drink(url: str, token: str, taken: Any) -> None:
    socket = _look(url, token, "flood", ["yes", "the quick brown fox jumps over the lazy dog"])
    while True:
        taken.value += len(socket.receive().data)


def _report(quiet: list[float], busy: list[float], rate: float) -> None:
    print(f"\necho of a key, {len(quiet)} each        p50      p95      max")
    for name, values in (("(a) nothing else", quiet), ("(b) beside a flood", busy)):
        figures = (statistics.median(values), statistics.quantiles(values, n=20)[-1], max(values))
        print(f"  {name:<22}" + "".join(f"{figure * 1000:9.1f}" for figure in figures) + " ms")
    p95 = statistics.quantiles(busy, n=20)[-1]
    verdict = "met" if p95 <= TARGET else "missed"
    print(f"  the flood: {rate / 1e6:.1f} MB/s. Target p95 ≤ {TARGET * 1000:.0f} ms: {verdict}")


if __name__ == "__main__":
    main()
