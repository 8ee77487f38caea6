"""What becomes of a first boot: the wish for a warm template of the same."""

from __future__ import annotations

from images import services as image_services
from images.models import Kernel
from nexus_site.core.ids import NexusID
from nexus_site.core.steps import Run
from vms import warm
from vms.choice import choose
from vms.models import VM
from vms.services import warm as warm_services


def want_warm(run: Run, vm: VM) -> None:
    """The VM is ready. If it has booted for want of a template, one is made when there is time."""
    if run.made.get("wants_warm"):
        kernel = Kernel.objects.get(pk=NexusID.parse(run.made["kernel"]))
        choice = choose(vm, image_services.boot_files(kernel).vmlinux)
        warm_services.want(vm, warm.Fresh(kernel, choice))
        warm_services.make_next(besides=run.operation)
