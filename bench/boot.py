"""How much Nexus adds to a boot: ``./nexus bench boot [-n 7] [--firecracker [--cpus 1]] [--peer]``.

The same kernel, image and machine are started in turn (a) by the bare VMM (QEMU's command, or
Firecracker with a config file) with a minimal listener and (b) through Nexus, by one
``POST /v1/vms/VM/start``. What is measured is the time from the start of the command, or the
request, to the agent's hello; and where it goes. Then: ``nexusctl vm from-rootfs`` with the image
present to ready, phase by phase, and how long a job waits for a worker. With ``--firecracker`` all
of this is done in the rig (docs/rig.md) where this host's KVM runs no guests; its machine has
``--cpus`` CPUs, and with one the guest waits for all that Nexus does meanwhile. As root (b) is
jailed and in a network of its own; (a) is neither, and makes its tap itself. With ``--peer`` the
PyPI package quick-sandbox boots its own Alpine with QEMU and the same accelerator.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from datetime import datetime
from typing import Any, NoReturn

from bench.bare import BareFirecracker, BareQemu
from bench.peer import create_to_first_result
from bench.server import Server, rest, running_server
from tests.rig import host

#: The rig's machine is slow, and its guests are slower.
PATIENT = {
    "NEXUS_KVM_TRIAL_SECONDS": "300",
    "NEXUS_HEARTBEAT_TIMEOUT": "60",
    "NEXUS_TIMEOUT": "300",
}


HELLO, WAIT = "to the hello", "wait for a worker"


def main() -> None:
    options = _options()
    if options.firecracker and host.firecracker() is None:
        _in_the_rig(options.cpus, sys.argv[1:])
    with running_server(None, **PATIENT, NEXUS_HYPERVISOR=_hypervisor(options)) as server:
        if options.firecracker:
            programs = str(host.firecracker())
            server.ctl("firecracker", "download", "--provider", "local", "--path", programs)
        print("Building the image and booting once (not measured)…", flush=True)
        server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "bench")
        boot = server.get("/v1/vms/bench/boots")["items"][0]
        accelerator = boot["accelerator"]
        bare_vmm = (BareFirecracker if options.firecracker else BareQemu).of(
            server, server.get("/v1/vms/bench")
        )
        server.ctl("vm", "stop", "bench")
        version = f"{boot['hypervisor']} {boot['hypervisor_version']}"
        print(f"{version}, accelerator {accelerator}; {options.n} rounds, in turn\n")
        bare, nexus = _compare(server, bare_vmm, options.n)
        _report_boot(bare, nexus, boot["hypervisor"])
        chain, peer = [], []
        for number in range(options.n):
            chain.append(_from_rootfs(server, f"chain-{number}"))
            if options.peer:
                peer.append(create_to_first_result(accelerator))
        _report_chain(chain, nexus)
        if options.peer:
            _report_peer(peer, [row["to ready"] for row in chain])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./nexus bench boot", description=__doc__)
    parser.add_argument("-n", type=int, default=7, help="rounds (7)")
    parser.add_argument("--firecracker", action="store_true", help="instead of QEMU")
    parser.add_argument("--cpus", type=int, default=1, help="of the rig's machine (1)")
    parser.add_argument("--peer", action="store_true", help="time quick-sandbox as well")
    return parser.parse_args()


def _hypervisor(options: argparse.Namespace) -> str:
    return "firecracker" if options.firecracker else "qemu"


def _in_the_rig(cpus: int, arguments: list[str]) -> NoReturn:
    rig = ["-m", "tests.rig", "run", "--limit", "7200", "--cpus", str(cpus)]
    command = [sys.executable, *rig, "--", "python", "-m", "bench.boot", *arguments]
    raise SystemExit(subprocess.call(command))


# (a) and (b)


def _compare(
    server: Server, bare_vmm: BareQemu | BareFirecracker, rounds: int
) -> tuple[list[float], list[dict[str, float]]]:
    """Seconds of each bare boot, and those of each through Nexus by phase."""
    bare, nexus = [], []
    for number in range(1, rounds + 1):
        rest()
        bare.append(bare_vmm.seconds_to_hello())
        rest()
        nexus.append(_through_nexus(server))
        print(f"  {number}: bare {bare[-1]:6.2f} s   Nexus {nexus[-1][HELLO]:6.2f} s", flush=True)
    return bare, nexus


def _through_nexus(server: Server) -> dict[str, float]:
    """One start by the API; seconds from the request to the hello, and of what lies between."""
    began = time.time()
    operation = server.post("/v1/vms/bench/start?wait=60")
    while operation["state"] in ("queued", "running"):
        operation = server.get(f"/v1/operations/{operation['id']}?wait=60")
    boot = server.get("/v1/vms/bench/boots")["items"][0]
    server.ctl("vm", "stop", "bench", "--force")
    steps = {step["title"]: step["seconds"] or 0.0 for step in operation["steps"]}
    return {
        HELLO: _clock(boot["hello_at"]) - began,
        "the request": _clock(operation["created_at"]) - began,
        WAIT: _waited(operation),
        **steps,
        "VMM to hello": boot["seconds_to_hello"],
    }


def _clock(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _waited(operation: dict[str, Any]) -> float:
    return _clock(operation["started_at"]) - _clock(operation["created_at"])


def _report_boot(bare: list[float], nexus: list[dict[str, float]], vmm: str) -> None:
    through = [row[HELLO] for row in nexus]
    print("\nstart → agent hello             median     min     max")
    for name, values in ((f"(a) bare {vmm}", bare), ("(b) POST /v1/vms/VM/start", through)):
        middle = statistics.median(values)
        print(f"  {name:<28} {middle:7.2f} {min(values):7.2f} {max(values):7.2f} s")
    ratio = statistics.median(through) / statistics.median(bare)
    print(f"  (b)/(a) = {ratio:.3f}   (target ≤ 1.15)\n")
    _report_phases("where it goes", nexus)


def _report_phases(title: str, rows: list[dict[str, float]]) -> None:
    print(f"{title:<30} median (s)")
    for phase in rows[0]:
        print(f"  {phase:<28} {statistics.median(row[phase] for row in rows):10.3f}")
    print()


# from-rootfs


def _from_rootfs(server: Server, name: str) -> dict[str, float]:
    """One ``vm from-rootfs`` with the image there; seconds by phase."""
    began = time.monotonic()
    operation = server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", name)
    row = {"to ready": time.monotonic() - began, WAIT: _waited(operation)}
    row |= {step["title"]: step["seconds"] or 0.0 for step in operation["steps"]}
    server.ctl("vm", "delete", name, "--force", "--yes")
    return row


def _report_chain(rows: list[dict[str, float]], starts: list[dict[str, float]]) -> None:
    _report_phases("vm from-rootfs, image present", rows)
    waits = [row[WAIT] for row in (*starts, *rows)]
    print(f"wait of a job for a worker: p50 {statistics.median(waits) * 1000:.0f} ms (≤ 50 ms)\n")


# The peer


def _report_peer(theirs: list[float], ours: list[float]) -> None:
    print("create → first result or ready, in turn: quick-sandbox, Nexus")
    for peer, nexus in zip(theirs, ours, strict=True):
        print(f"  {peer:6.2f} s {nexus:6.2f} s")
    a, b = statistics.median(theirs), statistics.median(ours)
    print(f"  medians {a:.2f} s, {b:.2f} s: {a / b:.1f}×   (target ≥ 8×)")


if __name__ == "__main__":
    main()
