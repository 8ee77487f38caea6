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

for name in [name for name in os.environ if name.startswith("NEXUS_")]:
    del os.environ[name]
for name in ("DATABASE_URL", "REDIS_URL"):
    os.environ.pop(name, None)
os.environ["NEXUS_DATA_DIR"] = str(DATA_DIR)
os.environ["NEXUS_LOG_LEVEL"] = "WARNING"

hypothesis.settings.register_profile("nexus", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("nexus")
