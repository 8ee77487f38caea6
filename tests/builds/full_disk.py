"""A build on a disk that is full, and one after it was freed. Prints what came of each.

    unshare --user --map-root-user --mount python full_disk.py DATA_DIR

Runs in a mount namespace of its own, where anybody may mount a small tmpfs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DATA_DIR = Path(sys.argv[1])
os.environ["NEXUS_DATA_DIR"] = str(DATA_DIR)
os.environ["DJANGO_SETTINGS_MODULE"] = "nexus_site.settings"

import django  # noqa: E402

django.setup()

from django.core.management import call_command  # noqa: E402

from builds import services  # noqa: E402
from images import services as image_services  # noqa: E402
from nexus_site.core import operations  # noqa: E402


def build() -> dict[str, Any]:
    from builds.models import Template

    operation = services.trigger_build(Template.objects.get())
    operations.execute(operation.id)
    operation.refresh_from_db()
    left = sorted(str(p.relative_to(DATA_DIR)) for p in (DATA_DIR / "builds").rglob("*"))
    return {"state": operation.state, "error": operation.error, "left": left}


def main() -> None:
    operations.send_nudges_to(lambda operation_id: None)
    call_command("migrate", verbosity=0)
    download = image_services.download_rootfs("alpine", "3.23")
    operations.execute(download.id)
    services.create_template(name="base", rootfs=image_services.installed_rootfs("alpine", "3.23"))
    builds = DATA_DIR / "builds"
    builds.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", builds], check=True)
    full = build()
    subprocess.run(["mount", "-o", "remount,size=400m", builds], check=True)
    print(json.dumps({"full": full, "freed": build()}))


main()
