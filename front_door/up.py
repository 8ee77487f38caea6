"""``./nexus up``: from a fresh clone to a dashboard and a ready VM; quick when run again."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from front_door.assets import ensure_assets
from front_door.data_directory import ensure_data_directory
from front_door.environment import ensure_agent, ensure_python
from front_door.paths import NEXUSCTL, PYTHON, ROOT
from front_door.server import Server, stop
from front_door.steps import Terminal, step
from front_door.tools import ensure_vmm
from nexus_site.core.errors import Broken, NotFound
from nexus_site.daemon import check_port_free, default_data_dir

FIRST_VM = "hello"
IDEAS_WITH_VM = (
    f"vm history {FIRST_VM}    # every state it was in, when and why",
    f"vm logs {FIRST_VM}       # what its console said",
    "vm from-rootfs alpine 3.23 --name second",
)
IDEAS_WITHOUT_VM = (
    f"vm from-rootfs alpine 3.23 --name {FIRST_VM}    # the first VM",
    "rootfs list    # what VMs can be made from",
    "status",
)


def prepare(terminal: Terminal, lock: str = "run") -> None:
    """Bring everything that Nexus needs into the clone and onto the host; skip what is there."""
    with step(terminal, "Python environment") as this:
        ensure_python(this, lock)
    with step(terminal, "Guest agent") as this:
        ensure_agent(this)
    with step(terminal, "QEMU and e2fsprogs") as this:
        ensure_vmm(this)
    with step(terminal, "Dashboard assets") as this:
        ensure_assets(this)


def up(server: Server, *, detach: bool, with_vm: bool) -> int:
    """Set up and start Nexus; returns the exit code (when it stops, unless ``detach``)."""
    terminal = Terminal()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    with _one_at_a_time(terminal):
        process = _start(terminal, server)
    try:
        failed = with_vm and not _ensure_vm(terminal, server)
        _say_goodbye(server, with_vm=with_vm and not failed)
        if process and not detach:
            _follow(server, process)
    except BaseException:
        if process and not detach:
            stop(process.pid)
            process.wait()
        raise
    return 1 if failed else 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _one_at_a_time(terminal: Terminal) -> Iterator[None]:
    """Two of these commands in one clone would install into the same places."""
    clone = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(clone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            terminal.line("-", "Waiting for another ./nexus in this clone.")
            fcntl.flock(clone, fcntl.LOCK_EX)
        yield
    finally:
        os.close(clone)


def _start(terminal: Terminal, server: Server) -> subprocess.Popen[bytes] | None:
    """Prepare and start Nexus; None when it runs already (then nothing is changed)."""
    if running := server.running():
        terminal.line("✓", f"Nexus already runs: {running.url} (pid {running.pid})", colour=32)
        return None
    check_port_free(server.host, server.port)
    prepare(terminal)
    with step(terminal, "Data directory") as this:
        ensure_data_directory(this, server)
    with step(terminal, "Nexus") as this:
        this.doing("starting")
        process = server.start(this)
        this.note = f"serves on {server.url}"
    return process


def _ensure_vm(terminal: Terminal, server: Server) -> bool:
    """Create the first VM unless there is one of its name, whatever state that is in."""
    environment = os.environ | server.environment()
    inspect: list[str | Path] = [NEXUSCTL, "vm", "inspect", FIRST_VM, "--json"]
    found = subprocess.run(inspect, env=environment, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        terminal.line("✓", f"VM {FIRST_VM} is there")
        return True
    if found.returncode != NotFound.exit_code:
        raise Broken("nexusctl does not work.", detail=found.stderr)
    terminal.line("-", f"First VM: {FIRST_VM}, from the embedded Alpine 3.23")
    create: list[str | Path] = [NEXUSCTL, "vm", "from-rootfs", "alpine", "3.23", "--name", FIRST_VM]
    return subprocess.run(create, env=environment, check=False).returncode == 0


def _say_goodbye(server: Server, *, with_vm: bool) -> None:
    """Print the address, a sign-in link and three things to try: this command's result."""
    link = subprocess.run(
        [PYTHON, "manage.py", "sign_in_link", "--base-url", server.url],
        cwd=ROOT,
        env=os.environ | server.environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.strip()
    nexusctl = str(NEXUSCTL.relative_to(Path.cwd()) if Path.cwd() == ROOT else NEXUSCTL)
    if server.data_dir != default_data_dir():
        nexusctl = f"NEXUS_DATA_DIR={server.data_dir} {nexusctl}"
    ideas = IDEAS_WITH_VM if with_vm else IDEAS_WITHOUT_VM
    print(f"\nDashboard  {server.url}\nSign in    {link}  (works once)\n\nTry next:")
    print("\n".join(f"  {nexusctl} {idea}" for idea in ideas), flush=True)


def _follow(server: Server, nexusd: subprocess.Popen[bytes]) -> None:
    """Show nexusd's log until it ends or Ctrl-C stops it; VMs run on."""
    print(f"\nCtrl-C stops Nexus; VMs run on. The log ({server.log}):", flush=True)
    with server.log.open("rb") as log:
        log.seek(0, os.SEEK_END)
        while nexusd.poll() is None:
            sys.stdout.buffer.write(log.read())
            sys.stdout.buffer.flush()
            time.sleep(0.2)
    raise Broken(f"Nexus stopped (exit code {nexusd.returncode}).", hint=f"Its log: {server.log}")
