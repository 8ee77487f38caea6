"""What Nexus leaves of a stream of a VM's agent: ``./nexus bench files [--mb 256] [-n 3]``.

A file goes into one VM and out of it, in turn (a) by its agent alone, over the VM's own socket
while Nexus is down, and (b) by ``/v1/vms/VM/files/content``. Both write to and read from the same
disk of the same guest; the target for (b) is half of (a).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from bench.server import Server, running_server
from guest_agent import transports
from guest_agent.connection import AgentConnection
from guest_agent.files import Files

TIMEOUT = 600
PIECE = 256 * 1024
PATH = "/root/large"
TARGET = 0.5


class Figures:
    """MB a second, by what was done."""

    def __init__(self, megabytes: int) -> None:
        self.size = megabytes * 1_000_000
        self.bare: dict[str, list[float]] = {"up": [], "down": []}
        self.nexus: dict[str, list[float]] = {"up": [], "down": []}
        self.cpu: list[float] = []

    def add(self, to: dict[str, list[float]], way: str, began: float) -> None:
        to[way].append(self.size / 1e6 / (time.monotonic() - began))

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, self.size, PIECE):
            yield bytes(min(PIECE, self.size - start))


def main() -> None:
    parser = argparse.ArgumentParser(prog="./nexus bench files", description=__doc__)
    parser.add_argument("--mb", type=int, default=256, help="megabytes each way (256)")
    parser.add_argument("-n", type=int, default=3, help="times (3)")
    wanted = parser.parse_args()
    figures = Figures(wanted.mb)
    with running_server() as server:
        server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "bench", "--memory", "512")
        vm = server.get("/v1/vms/bench")
        print(f"accelerator {server.get('/v1/vms/bench/boots')['items'][0]['accelerator']}")
        for _ in range(wanted.n):
            through_nexus(server, figures)
            server.stop()
            asyncio.run(by_the_agent(server.data_dir / "vms" / vm["id"], figures))
            server.start()
            _wait_until_ready(server)
    report(figures)


async def by_the_agent(directory: Path, figures: Figures) -> None:
    reader, writer = await transports.connect(directory / "agent.sock")
    agent = await AgentConnection.open(reader, writer, hello_timeout=TIMEOUT)
    files = Files(agent)
    began = time.monotonic()
    await files.write(PATH, _as_they_come(figures), size=figures.size)
    figures.add(figures.bare, "up", began)
    began, got = time.monotonic(), 0
    async for data in await files.read(PATH):
        got += len(data)
    figures.add(figures.bare, "down", began)
    assert got == figures.size
    await agent.close()


async def _as_they_come(figures: Figures) -> AsyncIterator[bytes]:
    for piece in figures.pieces():
        yield piece


def through_nexus(server: Server, figures: Figures) -> None:
    assert server.daemon is not None
    processes = psutil.Process(server.daemon.pid).children()
    before = _cpu(processes)
    headers = {"Content-Length": str(figures.size)}
    began = time.monotonic()
    with _asked(server, "PUT", figures.pieces(), headers) as response:
        assert response.status == 200, response.read()
        response.read()
    figures.add(figures.nexus, "up", began)
    began, got = time.monotonic(), 0
    with _asked(server, "GET") as response:
        while data := response.read(PIECE):
            got += len(data)
    figures.add(figures.nexus, "down", began)
    assert got == figures.size
    figures.cpu.append((_cpu(processes) - before) / (2 * figures.size / 1e8))


def _asked(
    server: Server, method: str, body: Any = None, headers: dict[str, str] | None = None
) -> HTTPResponse:
    token = (server.data_dir / "token").read_text().strip()
    parts = urlsplit(server.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    everything = {"Authorization": f"Bearer {token}"} | (headers or {})
    connection.request(method, f"/v1/vms/bench/files/content?path={PATH}", body, everything)
    return connection.getresponse()


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _wait_until_ready(server: Server) -> None:
    until = time.monotonic() + TIMEOUT
    while server.get("/v1/vms/bench")["state"] != "ready":
        if time.monotonic() > until:
            raise SystemExit("the VM is not ready any more")
        time.sleep(0.1)


def report(figures: Figures) -> None:
    print(f"\n{figures.size // 1_000_000} MB, MB/s (median)      up     down")
    rows = (("(a) the agent alone", figures.bare), ("(b) through Nexus", figures.nexus))
    for name, speeds in rows:
        up, down = (statistics.median(speeds[way]) for way in ("up", "down"))
        print(f"  {name:<22} {up:8.1f} {down:8.1f}")
    shares = {
        way: statistics.median(figures.nexus[way]) / statistics.median(figures.bare[way])
        for way in ("up", "down")
    }
    print(f"  share                  {shares['up']:8.0%} {shares['down']:8.0%}  (target ≥ 50 %)")
    cpu = statistics.mean(figures.cpu)
    print(f"  CPU of web and worker {cpu:.2f} s for 100 MB")
    if min(shares.values()) < TARGET:
        raise SystemExit("Nexus leaves less than half of the stream.")


if __name__ == "__main__":
    main()
