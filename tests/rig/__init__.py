"""The rig: a machine in which the real Firecracker boots real guests, without KVM of the host.

Level 0 is this host, with QEMU; level 1 a Debian that QEMU emulates together with AMD's
virtualization, so that it has a /dev/kvm that works; level 2 the guests of Firecracker in it.
"""
