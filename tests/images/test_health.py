"""What the doctor says of programs that images and kernels need."""

from __future__ import annotations

from pathlib import Path

import pytest

from images import health
from nexus_site.core.health import Finding


def gpgv() -> Finding:
    return health._gpgv()


def test_a_host_with_gpgv_is_fine() -> None:
    found = gpgv()
    assert (found.state, Path(found.found).name) == ("fine", "gpgv")


def test_one_without_it_says_what_it_cannot_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = gpgv()
    assert found.state == "limited"
    assert "Kernels of kernel.org" in found.meaning
    assert "gpgv" in found.command
