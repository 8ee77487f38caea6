"""One storage a data directory, found anew when there is another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from drives import services
from drives.services import places
from drives.storage import Storage
from nexus_site.core.errors import Broken


def test_a_storage_is_opened_once(own_data_dir: Path) -> None:
    assert services.storage() is services.storage()


def test_a_pool_that_another_process_made_is_seen(
    own_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []

    def opening(data_dir: Path) -> object:
        opened.append((data_dir / "pool.btrfs").exists())
        return object()

    monkeypatch.setattr(places, "open_storage", opening)
    services.storage()
    (own_data_dir / "pool.btrfs").touch()
    services.storage()
    assert opened == [False, True]


def test_what_killed_processes_left_is_removed(own_data_dir: Path) -> None:
    part = services.storage().describe().directory / ".somebody.img.0123abcd.part"
    part.touch()
    assert services.sweep_storage() == [part]
    assert not part.exists()


def test_a_storage_that_cannot_be_opened_is_no_reason_not_to_start(
    own_data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(data_dir: Path) -> Storage:
        raise Broken("The pool is not mounted.", hint="Mount it.")

    with monkeypatch.context() as patched:
        patched.setattr(places, "open_storage", closed)
        assert services.sweep_storage() == []
        assert "The pool is not mounted. Mount it." in caplog.text
        with pytest.raises(Broken):
            services.storage()
    assert services.storage(), "once it is there, it is used"
