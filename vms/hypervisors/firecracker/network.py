"""The network of a jailed VM: a namespace of its own with a tap, and a cable to the host.

    guest 10.0.2.15 -- tap0 10.0.2.2 [nexus-<ref>] up0 -- a /30 of the pool -- nx<ref> [host]

The guest sees what QEMU's user network shows it, so that a VM may move between the two. What
passes is in `firewall`. Changes on the host hold a lock, whichever process makes them.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from nexus_site.core.errors import Broken
from vms.hypervisors.base import VmmSpec
from vms.hypervisors.firecracker import firewall, syscalls
from vms.hypervisors.firecracker.netns import (
    host_addresses,
    in_network,
    ip_job,
    nft_job,
    run_together,
)
from vms.hypervisors.firecracker.place import NetworkPlan
from vms.hypervisors.firecracker.resolver import find_resolver

DEFAULT_POOL = IPv4Network("10.213.0.0/16")
CABLE = 30  # the prefix of the addresses of a cable's ends
CABLE_SIZE = 2 ** (32 - CABLE)
TAP = "tap0"
NAMESPACES = Path("/run/netns")
LOCK = Path("/run/nexus-network.lock")

_HOST_END = re.compile(r"nx[a-z0-9]{13}")
_SETTINGS = Path("/proc/sys/net")  # shows those of the namespace of the thread that looks


class HostNetwork:
    """VMs' networks on this host; see `vms.hypervisors.firecracker.place.Network`.

    `pool` gives each VM a /30 that nothing else on the host may use.
    """

    def __init__(
        self,
        pool: IPv4Network = DEFAULT_POOL,
        resolver: Callable[[], IPv4Address | None] = find_resolver,
    ) -> None:
        self.pool, self._resolver = pool, resolver

    def prepare(self, spec: VmmSpec, uid: int | None) -> NetworkPlan:
        """As in `Network`. Raises Broken (code "network-failed"); nothing is left then."""
        self.cleanup(spec.ref)
        namespace = namespace_of(spec.ref)
        tap_user = os.geteuid() if uid is None else uid
        try:
            with _locked():
                host_end = self._free_address(spec.slot)
                _set("ipv4/ip_forward", "1")
                run_together(
                    ip_job(host_commands(spec.ref, host_end)),
                    nft_job(firewall.host_rules(self.pool, self._resolver())),
                )
            in_network(
                lambda: syscalls.enter_network(namespace), lambda: _furnish(host_end, tap_user)
            )
        except BaseException:
            self.cleanup(spec.ref)
            raise
        return NetworkPlan(TAP, namespace)

    def cleanup(self, ref: str) -> None:
        """As in `Network`. With the last VM's network the host's rules go, too."""
        if not _remains(ref):
            return
        with _locked():
            if commands := _remains(ref):
                run_together(ip_job(commands))
            if not any(map(is_host_end, _interfaces())):
                run_together(nft_job(firewall.remove_host_rules()))

    def _free_address(self, slot: int) -> IPv4Interface:
        """The host's end of a /30 that nobody has; that of the slot, if it can be."""
        taken = {int(address) // CABLE_SIZE for _, address in host_addresses()}
        first = int(self.pool.network_address) // CABLE_SIZE
        count = self.pool.num_addresses // CABLE_SIZE
        for number in range(slot, slot + count):
            cable = first + number % count
            if cable not in taken:
                return IPv4Interface((cable * CABLE_SIZE + 1, CABLE))
        raise Broken(
            f"All {count} networks in {self.pool} are in use.",
            hint="Set NEXUS_NETWORK to a larger one that is free on this host.",
            code="network-failed",
        )


def namespace_of(ref: str) -> Path:
    """The VM's network namespace, as a file."""
    return NAMESPACES / f"nexus-{ref}"


def host_end_of(ref: str) -> str:
    """The VM's interface on the host."""
    return f"nx{ref}"


def is_host_end(interface: str) -> bool:
    """Whether that is the interface of some VM."""
    return _HOST_END.fullmatch(interface) is not None


def host_commands(ref: str, host_end: IPv4Interface) -> list[str]:
    """For `ip -batch` on the host: the namespace, and a cable into it."""
    name, namespace = host_end_of(ref), namespace_of(ref).name
    return [
        f"netns add {namespace}",
        f"link add {name} group {firewall.GROUP} type veth peer name up0 netns {namespace}",
        f"addr add {host_end} dev {name}",
        f"link set {name} up",
    ]


def guest_commands(host_end: IPv4Interface, uid: int) -> list[str]:
    """For `ip -batch` in the namespace: the tap, which only `uid` may open, and the way out."""
    return [
        "link set lo up",
        f"tuntap add {TAP} mode tap user {uid}",
        f"addr add {firewall.GATEWAY} dev {TAP}",
        f"addr add {firewall.DNS}/32 dev {TAP}",
        f"link set {TAP} up",
        f"addr add {host_end.ip + 1}/{CABLE} dev up0",
        "link set up0 up",
        f"route add default via {host_end.ip}",
    ]


def _furnish(host_end: IPv4Interface, uid: int) -> None:
    """Fill the namespace that this thread is in."""
    _set("ipv4/ip_forward", "1")
    for interfaces in ("all", "default"):  # guests have IPv4 alone; so has a VMM that turns bad
        _set(f"ipv6/conf/{interfaces}/disable_ipv6", "1")
    run_together(ip_job(guest_commands(host_end, uid)), nft_job(firewall.guest_rules(host_end.ip)))


def _set(name: str, value: str) -> None:
    """A setting of this thread's network namespace; none where the kernel has no such thing."""
    file = _SETTINGS / name
    if file.exists() and file.read_text().strip() != value:
        file.write_text(value)


def _remains(ref: str) -> list[str]:
    """What `ip -batch` must do to remove what is there of a VM's network."""
    commands = []
    if host_end_of(ref) in _interfaces():
        commands.append(f"link del {host_end_of(ref)}")
    if namespace_of(ref).exists():
        commands.append(f"netns del {namespace_of(ref).name}")
    return commands


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


@contextmanager
def _locked() -> Iterator[None]:
    fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
