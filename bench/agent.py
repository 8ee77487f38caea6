"""How much Nexus adds to a program in a VM: ``./nexus bench agent [-n 200] [--peer]``.

``true`` is run in one VM in turn (a) by its agent alone, over the VM's own socket while Nexus is
down, and (b) by ``POST /v1/vms/VM/exec`` over one connection. The VM is the same one; what Nexus
adds is the difference of the medians. A guest that rests between two programs takes longer over
each: in (a) it rests as long as Nexus may take in (b). CPU time of web and worker does not depend
on what else the machine does. Then fifty programs run in the VM at once. With ``--peer`` the PyPI
package quick-sandbox runs ``true`` as often, in its own Alpine with the same accelerator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import psutil

from bench.peer import exec_times
from bench.server import Server, running_server
from guest_agent import transports
from guest_agent.connection import AgentConnection

TIMEOUT = 300
ROUNDS = 2
TARGET = 5.0  # milliseconds that Nexus may add
CROWD = 50  # programs at once


def main() -> None:
    parser = argparse.ArgumentParser(prog="./nexus bench agent", description=__doc__)
    parser.add_argument("-n", type=int, default=200, help="programs (200)")
    parser.add_argument("--peer", action="store_true", help="quick-sandbox beside it")
    options = parser.parse_args()
    count = options.n
    with running_server() as server:
        server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "bench", "--memory", "256")
        vm = server.get("/v1/vms/bench")
        accelerator = server.get("/v1/vms/bench/boots")["items"][0]["accelerator"]
        print(f"accelerator {accelerator}")
        bare: list[float] = []
        nexus: list[float] = []
        cpu: list[float] = []
        peer: list[float] = []
        for _ in range(ROUNDS):
            if options.peer:
                peer += exec_times(accelerator, count // ROUNDS)
            nexus += _through_nexus(server, count // ROUNDS, cpu)
            server.stop()
            bare += asyncio.run(_bare(server, vm, count // ROUNDS))
            server.start()
            _wait_until_ready(server)
        crowd = _crowd(server)
    _report(bare, nexus, cpu)
    print(f"  {CROWD} at once: all ended after {crowd:.2f} s")
    if peer:
        _report_peer(peer, nexus)


async def _bare(server: Server, vm: dict[str, Any], count: int) -> list[float]:
    """Seconds that each ``true`` takes by the agent alone."""
    reader, writer = await transports.connect(server.data_dir / "vms" / vm["id"] / "agent.sock")
    agent = await AgentConnection.open(reader, writer, hello_timeout=TIMEOUT)
    took = []
    for number in range(count + 5):
        began = time.perf_counter()
        await agent.execute(["true"], on_output=lambda _, __: None)
        if number >= 5:  # the first ones warm up
            took.append(time.perf_counter() - began)
        await asyncio.sleep(TARGET / 1000)
    await agent.close()
    return took


def _through_nexus(server: Server, count: int, cpu: list[float]) -> list[float]:
    """Seconds that each takes over HTTP; adds the CPU seconds of each to ``cpu``."""
    assert server.daemon is not None
    processes = psutil.Process(server.daemon.pid).children()
    parts = urlsplit(server.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    took = []
    for number in range(count + 5):
        if number == 5:
            before = _cpu(processes)
        began = time.perf_counter()
        _ask(server, connection)
        if number >= 5:
            took.append(time.perf_counter() - began)
    cpu.append((_cpu(processes) - before) / count)
    connection.close()
    return took


def _crowd(server: Server) -> float:
    """Seconds until many programs that are started at once have all ended."""

    def run(_: int) -> None:
        parts = urlsplit(server.url)
        _ask(server, HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT))

    began = time.perf_counter()
    with ThreadPoolExecutor(CROWD) as threads:
        list(threads.map(run, range(CROWD)))
    return time.perf_counter() - began


def _ask(server: Server, connection: HTTPConnection) -> None:
    token = (server.data_dir / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/vms/bench/exec", json.dumps({"argv": ["true"]}), headers)
    answer = json.loads(connection.getresponse().read())
    if answer.get("exit_code") != 0:
        raise SystemExit(f"true does not run: {answer}")


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _wait_until_ready(server: Server) -> None:
    until = time.monotonic() + TIMEOUT
    while server.get("/v1/vms/bench")["state"] != "ready":
        if time.monotonic() > until:
            raise SystemExit("the VM is not ready any more")
        time.sleep(0.1)


def _report(bare: list[float], nexus: list[float], cpu: list[float]) -> None:
    print(f"\nexec of true, {len(nexus)} each          p50      p95")
    for name, values in (("(a) the agent alone", bare), ("(b) POST /v1/vms/VM/exec", nexus)):
        p95 = statistics.quantiles(values, n=20)[-1]
        print(f"  {name:<26} {statistics.median(values) * 1000:7.1f}  {p95 * 1000:7.1f} ms")
    added = (statistics.median(nexus) - statistics.median(bare)) * 1000
    print(f"  Nexus adds {added:.1f} ms (p50, target ≤ {TARGET:.0f} ms);", end=" ")
    print(f"CPU of web and worker {statistics.mean(cpu) * 1000:.1f} ms each")


def _report_peer(peer: list[float], nexus: list[float]) -> None:
    theirs, ours = statistics.median(peer), statistics.median(nexus)
    print(f"  quick-sandbox {theirs * 1000:.1f} ms, Nexus {ours * 1000:.1f} ms (p50):", end=" ")
    print(f"{theirs / ours:.1f}x faster (target 3x)")


if __name__ == "__main__":
    main()
