"""The words on the guest kernel's command line that every VMM gives it."""

from __future__ import annotations

from vms.hypervisors.base import Disk

# Errors, panics and what a person wants to see; the rest of the kernel's 220 lines would cost
# emulation 5 % of the start. A panic ends the VMM at once.
CONSOLE = ("console=ttyS0", "loglevel=6", "panic=-1")


def root_arguments(disks: tuple[Disk, ...]) -> list[str]:
    """Where the root is: the first disk. `rootflags=rw` beside `rw`, since Alpine's init mounts
    it by its flags."""
    if not disks:
        return []
    mode = ["ro"] if disks[0].read_only else ["rw", "rootflags=rw"]
    return ["root=/dev/vda", "rootfstype=ext4", *mode]
