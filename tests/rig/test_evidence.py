"""What level 1 keeps of a test that failed."""

from __future__ import annotations

from pathlib import Path

from tests.rig.evidence import LARGEST, keep


def test_logs_are_kept_with_their_places_and_disks_are_not(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "vm 1").mkdir(parents=True)
    (source / "vm 1/console.log").write_text("panic")
    (source / "vm 1/exit.json").write_text("{}")
    (source / "vm 1/root.ext4").write_text("disk")
    (source / "vm 1/endless.log").write_bytes(b"x" * (LARGEST + 1))
    keep(source, tmp_path / "kept")
    kept = {path.name for path in (tmp_path / "kept/vm 1").iterdir()}
    assert kept == {"console.log", "exit.json"}
    assert (tmp_path / "kept/vm 1/console.log").read_text() == "panic"
