"""How much Nexus adds to a boot: ``./nexus bench boot [-n 7] [--peer]``.

The same kernel, image and machine flags are started in turn (a) by the bare QEMU command with
a minimal listener and (b) through ``nexusctl vm start``. What is measured is the time from the
start of the command to the agent's hello. Then: from-rootfs with the image present to ready,
phase by phase, and how long a job waits for a worker. With ``--peer`` the PyPI package
quick-sandbox boots its own Alpine with the same accelerator.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.peer import create_to_first_result
from bench.server import Server, running_server
from guest_agent import transports
from guest_agent.connection import AgentConnection

TIMEOUT = 300


def main() -> None:
    options = _options()
    with running_server() as server:
        print("Building the image and booting once (not measured)…", flush=True)
        server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "bench")
        accelerator = server.get("/v1/vms/bench/boots")["items"][0]["accelerator"]
        launch = _keep_launch(server)
        server.ctl("vm", "stop", "bench")
        print(f"accelerator {accelerator}; {options.n} rounds, in turn\n")
        bare, nexus, total = _compare(server, launch, options.n)
        _report_boot(bare, nexus)
        chain, peer = [], []
        for number in range(options.n):
            chain.append(_from_rootfs(server, f"chain-{number}"))
            if options.peer:
                peer.append(create_to_first_result(accelerator))
        _report_chain(chain, total)
        if options.peer:
            _report_peer(peer, [row["to ready"] for row in chain])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./nexus bench boot", description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="rounds (7)")
    parser.add_argument("--peer", action="store_true", help="time quick-sandbox as well")
    return parser.parse_args()


# (a) and (b)


def _keep_launch(server: Server) -> dict[str, Any]:
    """The command that Nexus starts the VM with."""
    vm = server.get("/v1/vms/bench")
    launch: dict[str, Any] = json.loads(
        (server.data_dir / "vms" / vm["id"] / "launch.json").read_text()
    )
    return launch


def _compare(
    server: Server, launch: dict[str, Any], rounds: int
) -> tuple[list[float], list[float], list[float]]:
    bare, nexus, waits = [], [], []
    for number in range(1, rounds + 1):
        bare.append(_bare(launch))
        seconds, wait = _through_nexus(server)
        nexus.append(seconds)
        waits.append(wait)
        print(f"  {number}: bare {bare[-1]:6.2f} s   nexusctl {nexus[-1]:6.2f} s", flush=True)
    return bare, nexus, waits


def _bare(launch: dict[str, Any]) -> float:
    """Start the bare command in an empty directory; seconds to the hello of the agent."""
    directory = Path(tempfile.mkdtemp(prefix="nexus-bare-"))
    began = time.monotonic()
    vmm = subprocess.Popen(
        launch["argv"], env=launch["env"], cwd=directory,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        asyncio.run(_hello(directory / "agent.sock"))
        return time.monotonic() - began
    finally:
        vmm.kill()
        vmm.wait()
        shutil.rmtree(directory)


async def _hello(path: Path) -> None:
    reader, writer = await _dialled(path)
    connection = await AgentConnection.open(reader, writer, hello_timeout=TIMEOUT)
    await connection.close()


async def _dialled(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Dial the VMM as soon as it listens."""
    for _ in range(5000):
        with contextlib.suppress(OSError):
            return await transports.connect(path)
        await asyncio.sleep(0.002)
    raise SystemExit("the bare QEMU never listened")


def _through_nexus(server: Server) -> tuple[float, float]:
    """``nexusctl vm start``; seconds to the hello, and seconds the job waited for a worker."""
    began = time.time()
    operation = server.ctl("vm", "start", "bench")
    boot = server.get("/v1/vms/bench/boots")["items"][0]
    hello = datetime.fromisoformat(boot["hello_at"]).timestamp()
    server.ctl("vm", "stop", "bench", "--force")
    return hello - began, _waited(operation)


def _waited(operation: dict[str, Any]) -> float:
    created, started = (
        datetime.fromisoformat(operation[key]) for key in ("created_at", "started_at")
    )
    return (started - created).total_seconds()


def _report_boot(bare: list[float], nexus: list[float]) -> None:
    a, b = statistics.median(bare), statistics.median(nexus)
    print("\nstart → agent hello             median     min     max")
    for name, values in (("(a) bare QEMU", bare), ("(b) nexusctl vm start", nexus)):
        print(
            f"  {name:<28} {statistics.median(values):7.2f} {min(values):7.2f} {max(values):7.2f} s"
        )
    print(f"  (b)/(a) = {b / a:.3f}   (target ≤ 1.15)\n")


# from-rootfs


def _from_rootfs(server: Server, name: str) -> dict[str, float]:
    """One ``vm from-rootfs`` with the image there; seconds by phase."""
    began = time.monotonic()
    operation = server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", name)
    row = {"to ready": time.monotonic() - began, "wait for a worker": _waited(operation)}
    row |= {step["title"]: step["seconds"] or 0.0 for step in operation["steps"]}
    server.ctl("vm", "delete", name, "--force", "--yes")
    return row


def _report_chain(rows: list[dict[str, float]], start_waits: list[float]) -> None:
    print("vm from-rootfs, image present   median (s)")
    for phase in rows[0]:
        print(f"  {phase:<28} {statistics.median(row[phase] for row in rows):10.3f}")
    waits = start_waits + [row["wait for a worker"] for row in rows]
    print(f"\nwait of a job for a worker: p50 {statistics.median(waits) * 1000:.0f} ms (≤ 50 ms)\n")


# The peer


def _report_peer(theirs: list[float], ours: list[float]) -> None:
    print("create → first result or ready, in turn: quick-sandbox, Nexus")
    for peer, nexus in zip(theirs, ours, strict=True):
        print(f"  {peer:6.2f} s {nexus:6.2f} s")
    a, b = statistics.median(theirs), statistics.median(ours)
    print(f"  medians {a:.2f} s, {b:.2f} s: {a / b:.1f}×   (target ≥ 8×)")


if __name__ == "__main__":
    main()
