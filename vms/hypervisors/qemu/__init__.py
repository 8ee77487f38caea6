"""QEMU: runs everywhere, with KVM where that works and in emulation where it does not."""

from vms.hypervisors.qemu.driver import Qemu

__all__ = ["Qemu"]
