"""``./nexus down``: stop Nexus, and with ``--vms`` the VMs first."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from front_door.paths import NEXUSCTL
from front_door.server import Server
from front_door.steps import Terminal, step
from nexus_site.core.errors import Broken, Conflict

AT_REST = {"created", "stopped", "crashed", "failed", "suspended"}


def down(server: Server, *, with_vms: bool) -> int:
    """Stop the nexusd of the data directory; returns the exit code."""
    terminal = Terminal()
    running = server.running()
    if running is None:
        if with_vms:
            raise Conflict(
                f"No Nexus runs on {server.data_dir}, and only Nexus can stop its VMs.",
                hint="Run `./nexus up --detach --no-vm`, then `./nexus down --vms`.",
            )
        terminal.line("✓", f"No Nexus runs on {server.data_dir}.", colour=32)
        return 0
    if with_vms:
        _stop_vms(terminal, server)
    with step(terminal, "Nexus") as this:
        this.doing(f"stopping (pid {running.pid})")
        server.stop()
        this.note = "stopped; its VMs run on" if not with_vms else "stopped"
    return 0


def _stop_vms(terminal: Terminal, server: Server) -> None:
    for vm in _list_vms(server):
        if vm["state"] in AT_REST:
            continue
        with step(terminal, f"VM {vm['name']}") as this:
            this.doing("stopping")
            this.run([NEXUSCTL, "vm", "stop", vm["id"]], server.environment())
            this.note = "stopped"


def _list_vms(server: Server) -> list[dict[str, str]]:
    command: list[str | Path] = [NEXUSCTL, "vm", "list", "--json"]
    environment = os.environ | server.environment()
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise Broken("nexusctl cannot list the VMs.", detail=answer.stderr)
    vms: list[dict[str, str]] = json.loads(answer.stdout)
    return vms
