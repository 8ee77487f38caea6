"""Firecracker's suite, in level 1; the tests themselves are where `suite.PATHS` says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.rig import host, runs, suite, summary


@pytest.mark.live
@pytest.mark.xdist_group("rig")
@pytest.mark.timeout(suite.LIMIT + runs.OVERHEAD + 600)  # level 1 may have to be made first
def test_firecracker_in_the_rig(record_property: Callable[[str, object], None]) -> None:
    if not host.kvm_problem():
        pytest.skip("KVM runs guests here, so Firecracker's suite ran on this host itself")
    if problem := host.rig_problem():
        pytest.skip(problem)
    outcome = suite.run()
    record_property(summary.PROPERTY, outcome.summary())
    assert outcome.good, outcome.complaint()
