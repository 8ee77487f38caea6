"""A VM whose drives are really there."""

from __future__ import annotations

import pytest

from tests.factories import make_vm
from tests.vms.real_drives import add_drive
from vms.models import VM


@pytest.fixture
def vm(db: None) -> VM:
    """A VM at rest with a root drive and a data drive that are really there."""
    vm = make_vm(name="web", root=False, mem_size_mib=128)
    add_drive(vm, "root", is_root=True)
    add_drive(vm, "data", is_root=False, read_only=True)
    return vm
