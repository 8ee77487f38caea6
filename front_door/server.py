"""Starting, finding and stopping the nexusd of a data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from front_door.paths import NEXUSD, ROOT
from front_door.steps import Step
from nexus_site.core.errors import Broken
from nexus_site.daemon import DEFAULT_HOST, STOP_TIMEOUT, Running, local_url

LARGEST_LOG = 4 * 1024 * 1024
START_TIMEOUT = 120.0
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """Nexus on one data directory of this host."""

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.host = os.environ.get("NEXUS_HOST", DEFAULT_HOST)
        self.port = port
        self.log = data_dir / "run/nexusd.log"

    @property
    def url(self) -> str:
        running = self.running()
        return running.url if running else local_url(self.host, self.port)

    def environment(self) -> dict[str, str]:
        """What Nexus's own commands need to work on this data directory."""
        running = self.running()
        port = running.port if running else self.port
        return {"NEXUS_DATA_DIR": str(self.data_dir), "NEXUS_PORT": str(port)}

    def running(self) -> Running | None:
        return Running.read(self.data_dir)

    def start(self, step: Step) -> subprocess.Popen[bytes]:
        """Start nexusd in its own session, its output in ``run/nexusd.log``; wait until it serves.

        Broken, with the log's last lines, when it ends or does not answer in time.
        """
        self._rotate_log()
        began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [NEXUSD, "--host", self.host, "--port", str(self.port)],
                cwd=ROOT,
                env=os.environ | self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_it_serves(process, step)
        except BaseException as error:
            stop(process.pid)
            process.wait()
            if isinstance(error, Broken):
                error.detail = self.log.read_bytes()[began:].decode(errors="replace")[-3000:]
            raise
        return process

    def _rotate_log(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _wait_until_it_serves(self, process: subprocess.Popen[bytes], step: Step) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self.healthy():
            if process.poll() is not None:
                raise Broken("Nexus stopped while starting.")
            if time.monotonic() > deadline:
                raise Broken(f"Nexus does not answer on {self.url}.", hint=f"Its log: {self.log}")
            step.tick()
            time.sleep(0.05)

    def healthy(self) -> bool:
        """Whether the web process answers."""
        try:
            with NO_PROXY.open(f"{self.url}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def stop(self) -> bool:
        """Stop the nexusd of this data directory and wait for it; False when there is none."""
        running = self.running()
        if running is None:
            return False
        stop(running.pid)
        deadline = time.monotonic() + 3 * STOP_TIMEOUT  # web, worker, and some grace
        while running.alive():
            if time.monotonic() > deadline:
                os.kill(running.pid, signal.SIGKILL)  # its children die with it
            time.sleep(0.05)
        return True


def stop(pid: int) -> None:
    """Ask a nexusd to stop; it may have done so already."""
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
