"""Loaded before Django's settings: every test process has a data directory of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis

DATA_DIR = Path(tempfile.mkdtemp(prefix="nexus-test-"))
atexit.register(shutil.rmtree, DATA_DIR, ignore_errors=True)

#: What the rig says about the machine it is (tests/rig); all else is a person's own settings.
OF_THE_RIG = (
    {"NEXUS_TEST_RIG", "NEXUS_GUEST_KERNEL_ARGS"} if "NEXUS_TEST_RIG" in os.environ else set()
)

for name in [name for name in os.environ if name.startswith("NEXUS_")]:
    if name not in OF_THE_RIG:
        del os.environ[name]
for name in ("DATABASE_URL", "REDIS_URL"):
    os.environ.pop(name, None)
os.environ["NEXUS_DATA_DIR"] = str(DATA_DIR)
os.environ["NEXUS_LOG_LEVEL"] = "WARNING"
os.environ["NEXUS_WARM_TEMPLATES"] = "0"  # who tests them switches them on

hypothesis.settings.register_profile("nexus", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("nexus")
