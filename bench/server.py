"""A Nexus of its own for a benchmark: scratch data directory, free port, stopped at the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
TIMEOUT = 300  # seconds for an answer


@dataclass
class Server:
    """A server on a data directory of its own."""

    data_dir: Path
    url: str
    env: dict[str, str]
    daemon: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``nexusctl ARGUMENTS --json``."""
        return subprocess.run(
            [BIN / "nexusctl", *arguments, "--json"],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )

    def ctl(self, *arguments: str) -> Any:
        """The JSON that ``nexusctl ARGUMENTS`` prints; ``CtlFailed`` when it fails."""
        done = self.run(*arguments)
        if done.returncode != 0:
            raise CtlFailed(f"nexusctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def get(self, path: str) -> Any:
        """What the API answers to GET ``path``."""
        return self._ask(urllib.request.Request(self.url + path))  # noqa: S310  (our own server)

    def post(self, path: str, **data: Any) -> Any:
        """What the API answers to POST ``path``."""
        headers = {"Content-Type": "application/json"}
        body = json.dumps(data).encode()
        return self._ask(urllib.request.Request(self.url + path, body, headers))  # noqa: S310

    def _ask(self, request: urllib.request.Request) -> Any:
        token = (self.data_dir / "token").read_text().strip()
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return json.load(answer)

    def start(self) -> None:
        """Start ``nexusd``; returns when it serves. Emulated hosts (the rig) take their time."""
        log = self.data_dir / "run" / "nexusd.log"
        with log.open("ab") as output:
            self.daemon = subprocess.Popen(
                [BIN / "nexusd"], env=self.env, stdout=output, stderr=output
            )
        for _ in range(3000):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url + "/healthz", timeout=2).close()  # noqa: S310
                return
            if self.daemon.poll() is not None:
                break
            time.sleep(0.1)
        raise CtlFailed(log.read_text()[-3000:])

    def stop(self, *, kill: bool = False) -> None:
        """End ``nexusd``, by SIGKILL if asked to; VMs go on."""
        if self.daemon is not None:
            (self.daemon.kill if kill else self.daemon.terminate)()
            self.daemon.wait(timeout=60)
            self.daemon = None


class CtlFailed(Exception):
    """A command of the server did not work; the text is what it said."""


@contextlib.contextmanager
def running_server(directory: Path | None = None, **settings: str) -> Iterator[Server]:
    """A server on a scratch data directory (in ``directory``); its VMs are ended with it.

    Nothing boots in the background unless NEXUS_WARM_TEMPLATES says so.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="nexus-scratch-", dir=directory))
    port = _free_port()
    env = os.environ | {"NEXUS_WARM_TEMPLATES": "0"} | settings
    env |= {"NEXUS_DATA_DIR": str(data_dir), "NEXUS_PORT": str(port)}
    subprocess.run(
        [sys.executable, ROOT / "manage.py", "nexus_setup"],
        env=env,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    server = Server(data_dir, f"http://127.0.0.1:{port}", env)
    try:
        server.start()
        yield server
        for vm in server.get("/v1/vms?limit=200")["items"]:
            server.ctl("vm", "delete", vm["id"], "--force", "--with-snapshots", "--yes")
    finally:
        server.stop()
        shutil.rmtree(data_dir, ignore_errors=True)


def rest() -> None:
    """Let what was done before come to its end, on the disk as well."""
    os.sync()
    time.sleep(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
