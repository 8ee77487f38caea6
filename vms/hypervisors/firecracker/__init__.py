"""Firecracker: microVMs on KVM, each in a jail and with a network of its own where we are root."""

from vms.hypervisors.firecracker.binary import FirecrackerBinary
from vms.hypervisors.firecracker.driver import Firecracker

__all__ = ["Firecracker", "FirecrackerBinary"]
