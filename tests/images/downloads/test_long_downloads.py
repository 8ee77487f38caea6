"""What only long downloads show: memory, and processes that die in the middle."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from images.downloads import download
from tests.images.downloads.server import Mirror

LARGE = bytes(1 << 20) * 200
MEASURE = """
import re, sys
from pathlib import Path
from images.downloads import download
peak = lambda: re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
before = peak()
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
print(before, peak())
"""
DOWNLOAD = """
import sys
from pathlib import Path
from images.downloads import download
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
"""


def test_memory_does_not_grow_with_the_file(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/large", LARGE, piece=1 << 20)
    sha256 = hashlib.sha256(LARGE).hexdigest()
    argv = [sys.executable, "-c", MEASURE, url, str(tmp_path / "file"), sha256]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    before, after = (int(kib) for kib in told.split())
    assert after - before < 20 << 10
    assert after < 100 << 10


@pytest.mark.parametrize("cut_at_the_end", [False, True])
def test_a_download_whose_process_was_killed_is_resumed(
    mirror: Mirror, tmp_path: Path, cut_at_the_end: bool
) -> None:
    content = bytes(range(256)) * 8000
    sha256 = hashlib.sha256(content).hexdigest()
    go_on = threading.Event()
    hold = lambda number: number == 8 and go_on.wait(60)  # noqa: E731
    url = mirror.add("/file", content, before_piece=hold)
    part = tmp_path / ".file.download"
    process = subprocess.Popen([sys.executable, "-c", DOWNLOAD, url, tmp_path / "file", sha256])
    while not part.exists() or part.stat().st_size < 8 * (64 << 10):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    go_on.set()
    if cut_at_the_end:  # it died between the last byte and the file's place
        part.write_bytes(content)
    assert download(url, tmp_path / "file", sha256=sha256).path.read_bytes() == content
    asked_again = [] if cut_at_the_end else [f"bytes={8 * (64 << 10)}-"]
    assert mirror.ranges("/file") == [None, *asked_again]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
