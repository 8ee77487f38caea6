"""Builds and downloads of kernels on disks that are full, and after they were freed.

    unshare --user --map-root-user --mount python -m tests.builds.kernels.full_disk DATA_DIR

Prints what came of each. In a mount namespace of its own anybody may mount a small tmpfs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DATA_DIR = Path(sys.argv[1])
os.environ["NEXUS_DATA_DIR"] = str(DATA_DIR)
os.environ["DJANGO_SETTINGS_MODULE"] = "nexus_site.settings"

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402

from builds import services  # noqa: E402
from builds.kernels import pipeline  # noqa: E402
from images import kernel_boots  # noqa: E402
from images import services as image_services  # noqa: E402
from nexus_site.core import operations  # noqa: E402
from nexus_site.core.models import Operation  # noqa: E402
from tests.builds.kernels.conftest import Booter  # noqa: E402
from tests.builds.kernels.tiny_kernel import FRAGMENT, tarball, tree  # noqa: E402
from tests.images.downloads.server import running_mirror  # noqa: E402
from tests.images.kernels import Releases, vmlinux  # noqa: E402

BUILDS, KERNELS = DATA_DIR / "builds", image_services.assets_dir() / "kernels"
MIB = 1 << 20
FILLER = "filler"


@contextmanager
def small(place: Path, size: str) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def outcome(operation: Operation) -> dict[str, Any]:
    operations.execute(operation.id)
    operation.refresh_from_db()
    found = (path for place in (BUILDS, KERNELS) for path in place.rglob("*"))
    left = [path.name for path in found if path.suffix != ".log" and path.name != FILLER]
    return {"state": operation.state, "error": operation.error, "left": sorted(left)}


def build(make: str = "", **more: str) -> dict[str, Any]:
    files = (tree(make) if make else tree()) | more
    path = tarball(DATA_DIR / "source.tar.xz", files)
    return outcome(services.start_kernel_build(source=str(path), fragment=FRAGMENT))


def builds() -> Iterator[tuple[str, dict[str, Any]]]:
    with small(BUILDS, "4m"):
        yield "build", build()
        pipeline.ROOM = 0
        yield "unpack", build(big="x" * 8 * MIB)
        yield "compile", build("dd if=/dev/zero of=$(O)/big bs=1M count=8")
    with small(KERNELS, "64k"):
        (KERNELS / FILLER).write_bytes(bytes(60 << 10))
        yield "keep", build()
    yield "built", build()


def downloads(releases: Releases) -> Iterator[tuple[str, dict[str, Any]]]:
    for version, content in (("6.1.1", os.urandom(2 * MIB)), ("6.1.2", bytes(2 * MIB))):
        releases.publish(version, vmlinux(version) + content)
    with small(KERNELS, "1m"):
        yield "download", outcome(image_services.download_kernel("6.1.1"))
        yield "install", outcome(image_services.download_kernel("6.1.2"))
    yield "downloaded", outcome(image_services.download_kernel("6.1.1"))


def main() -> None:
    operations.send_nudges_to(lambda operation_id: None)
    kernel_boots._booter = Booter()
    call_command("migrate", verbosity=0)
    found = dict(builds())
    with running_mirror() as mirror, tempfile.TemporaryDirectory() as directory:
        releases = Releases(mirror, Path(directory))
        where = {"anvil_releases_url": releases.url, "anvil_releases_keyring": releases.keyring}
        settings.NEXUS = settings.NEXUS.model_copy(update=where)
        found |= dict(downloads(releases))
    print(json.dumps(found))


main()
