"""The rule that only a kernel which has booted is good."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from images.kernel_boots import BootTry, booter
from images.models import Kernel
from images.services.kernels import boot_files, ensure_initrd
from images.services.places import assets_dir
from nexus_site.core import events
from nexus_site.core.errors import Broken


def check_boots(
    kernel: Kernel, *, check: Callable[[], None], note: Callable[[str], None]
) -> Kernel:
    """Boot ``kernel`` once on each VMM that works here; it is good if all of them could.

    ``check`` is called about every second and may raise to give up; ``note`` is told what is
    tried. Where no VMM works the kernel stays as it is. Raises ``Broken`` (code
    ``kernel-does-not-boot``) for the first VMM on which it did not come to the agent's hello:
    the kernel is bad then.
    """
    ensure_initrd(kernel)
    files = boot_files(kernel)
    tries = []
    discard_boots(kernel)  # what a killed worker left
    try:
        for vmm in booter().usable():
            note(f"booting it on {vmm}")
            tries.append(booter().boot(vmm, files, _directory(kernel) / vmm, check))
            if tries[-1].problem:
                break
    finally:
        discard_boots(kernel)
    return _keep(kernel, tries)


def discard_boots(kernel: Kernel) -> None:
    """End what still runs of a try, and remove its files; safe to repeat."""
    directory = _directory(kernel)
    for path in directory.iterdir() if directory.exists() else ():
        booter().discard(path)
    shutil.rmtree(directory, ignore_errors=True)


def _directory(kernel: Kernel) -> Path:
    return assets_dir() / "boots" / kernel.ref


def _keep(kernel: Kernel, tries: list[BootTry]) -> Kernel:
    now = timezone.now().isoformat()
    failed = next((found for found in tries if found.problem), None)
    if tries:
        with transaction.atomic():
            kernel.boots = {
                found.vmm: {"seconds": found.seconds, "at": now, "problem": found.problem}
                for found in tries
            }
            kernel.state = Kernel.State.BAD if failed else Kernel.State.GOOD
            kernel.save(update_fields=["boots", "state"])
            events.append("kernel.tried", kernel, state=kernel.state)
    if failed is not None:
        raise Broken(
            f"The kernel does not boot. {failed.problem}",
            detail=failed.console,
            hint="Compare its options with those of one that boots; it is kept as bad.",
            code="kernel-does-not-boot",
        )
    return kernel
