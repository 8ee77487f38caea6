"""What the end of a console says about the guest."""

from pathlib import Path

import pytest

from vms.hypervisors.halted import console_says_halted


@pytest.mark.parametrize(
    ("console", "halted"),
    [
        ("[    1.0] Run /init\n[    9.1] reboot: System halted\n", True),
        ("[    9.1] reboot: System halted\r\n\r\n", True),
        ("[    9.1] reboot: Power off not available: System halted instead\r\n", True),
        ("x" * 5000 + "\n[    9.1] reboot: System halted", True),
        ("[    9.1] reboot: Power down\n", False),
        ("somebody said reboot: System halted\n[    9.2] and went on\n", False),
        ("", False),
    ],
)
def test_the_last_line_counts(tmp_path: Path, console: str, halted: bool) -> None:
    (tmp_path / "console.log").write_text(console, newline="")
    assert console_says_halted(tmp_path) is halted


def test_there_is_no_console_yet(tmp_path: Path) -> None:
    assert console_says_halted(tmp_path) is False
