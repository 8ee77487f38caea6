"""The Python environment ``.venv``, from the lock files, and the guest agent built with it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from front_door import system
from front_door.paths import PYTHON, ROOT, VENV, Stamp
from front_door.steps import Step
from nexus_site.core.errors import Broken

STAMPS = VENV / ".nexus"
PIP = (PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input", "install")


def pip_install_lock(step: Step, name: str) -> None:
    """Install exactly what ``requirements/<name>.txt`` lists, each file checked by its hash."""
    lock = ROOT / "requirements" / f"{name}.txt"
    step.run([*PIP, "--progress-bar=off", "--no-deps", "--require-hashes", "-r", lock])


def ensure_python(step: Step, lock: str) -> None:
    """Make ``.venv`` hold what ``requirements/<lock>.txt`` says, and Nexus itself."""
    version = _venv_version()
    if not version:
        _make_venv(step)
        version = _venv_version()
    if _ensure_lock(step, lock, version) | _ensure_nexus(step, version):
        return
    step.note = f"up to date (Python {version})"


def _venv_version() -> str:
    """The version of the environment's Python; empty when there is none that starts."""
    code = "import platform; print(platform.python_version())"
    try:
        found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found.stdout.strip()


def _make_venv(step: Step) -> None:
    if importlib.util.find_spec("ensurepip") is None and not system.install(step, ["venv"]):
        package = (system.packages(["venv"]) or ["the ensurepip module"])[0]
        raise Broken(
            "This Python cannot make virtual environments: its ensurepip module is missing.",
            hint=f"Run `apt install {package}` as root, then ./nexus again."
            if package == "python3-venv"
            else "Install the ensurepip module for it, then run ./nexus again.",
        )
    step.doing("making .venv")
    step.run([sys.executable, "-m", "venv", "--clear", VENV])


def _ensure_lock(step: Step, name: str, version: str) -> bool:
    stamp = _lock_stamp(name, version)
    if stamp.fresh():
        return False
    step.doing(f"installing requirements/{name}.txt")
    pip_install_lock(step, name)
    stamp.write()
    if name == "test":  # it holds all of run.txt, in the same versions
        _lock_stamp("run", version).write()
    return True


def _lock_stamp(name: str, version: str) -> Stamp:
    return Stamp(STAMPS / name, ROOT / "requirements" / f"{name}.txt", version)


def _ensure_nexus(step: Step, version: str) -> bool:
    """Install this clone itself, so that nexusd and nexusctl exist."""
    stamp = Stamp(STAMPS / "nexus", ROOT / "pyproject.toml", version, str(ROOT))
    if stamp.fresh():
        return False
    step.doing("installing Nexus from this clone")
    step.run([*PIP, "--no-deps", "--no-build-isolation", "-e", ROOT])
    stamp.write()
    return True


def ensure_agent(step: Step) -> None:
    """Build the guest agent when its source, its builder or a locked version has changed."""
    room = ROOT / "guest_agent"
    files = sorted(path for path in (room / "agent").rglob("*") if path.is_file())
    parts = [part for path in files for part in (str(path.relative_to(room)), path)]
    lock = ROOT / "requirements/run.txt"
    stamp = Stamp(room / "dist/.nexus", lock, room / "build.py", *parts)
    if stamp.fresh() and list(room.glob("dist/nexus-agent-*")):
        step.note = "up to date"
        return
    step.doing("compiling")
    step.run([PYTHON, "-m", "guest_agent.build"])
    stamp.write()
