"""Memory that a guest gives back to its host while it runs, and takes again."""

from __future__ import annotations

from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step
from vms.drivers import driver_of
from vms.hypervisors.base import Handle
from vms.lifecycle import vm_of
from vms.live_drives import alone_with
from vms.paths import vm_dir


def plan(operation: Operation) -> Plan:
    return [Step("balloon", "Tell the guest's balloon", inflate)]


def inflate(run: Run) -> str:
    """The VMM tells the guest, which follows in its own time."""
    vm, size = vm_of(run), run.params["mem_size_mib"]
    with alone_with(vm, run):
        driver = driver_of(vm)
        handle = driver.adopt(vm_dir(vm))
        if not isinstance(handle, Handle):
            raise Conflict(f"The VM “{vm.name}” has ended meanwhile.", code="vmm-ended")
        driver.balloon(handle, size)
    return f"it is to keep {size} MiB of {vm.mem_size_mib}"
