"""What a test run says at its end of the tests that ran in the rig; a part of tests/conftest.py."""

from __future__ import annotations

import pytest

PROPERTY = "rig"  # of a test, by ``record_property``: lines for people


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print those lines, whichever process ran the test."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    for report in reports:
        if getattr(report, "when", "") == "call" and PROPERTY in dict(report.user_properties):
            terminalreporter.section("rig")
            terminalreporter.line(dict(report.user_properties)[PROPERTY])
