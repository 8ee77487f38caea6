"""What a host lacks for the networks of jailed VMs, found by making one that nobody sees."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from images.formats.e2fsprogs import install_command
from nexus_site.core.errors import Broken
from vms.hypervisors.base import Problem
from vms.hypervisors.firecracker import firewall, syscalls
from vms.hypervisors.firecracker.netns import (
    PROGRAM_SECONDS,
    find_program,
    host_addresses,
    in_network,
    ip_job,
    nft_job,
    run_together,
)
from vms.hypervisors.firecracker.network import CABLE, guest_commands, is_host_end

_TUN = Path("/dev/net/tun")
_PACKAGES = {"ip": "iproute2", "nft": "nftables"}
_ALLOWED = re.compile(r'iifname "nx[*+]')
_SOME_SERVER = IPv4Address("192.0.2.1")  # for documentation; nothing is sent


def network_problem(pool: IPv4Network) -> Problem | None:
    """Why jailed VMs cannot have a network here; None if they can."""
    if os.geteuid() != 0:
        return Problem("Nexus does not run as root, so it cannot make networks.", "Run it as root.")
    if missing := [package for name, package in _PACKAGES.items() if not find_program(name)]:
        commands = " && ".join(install_command(package) for package in missing)
        return Problem(f"These packages are missing: {', '.join(missing)}.", commands, commands)
    if not _TUN.exists():
        command = "modprobe tun"
        return Problem(f"There is no {_TUN}, which guests' networks go through.", command, command)
    return _pool_problem(pool) or _trial_problem(pool)


def network_warnings(resolver: IPv4Address | None) -> tuple[Problem, ...]:
    """What VMs on this host will miss though they have a network. Needs root.

    `resolver` is what `find_resolver` found.
    """
    warnings = []
    if resolver is None:
        text = (
            "VMs have no DNS: /etc/resolv.conf names no IPv4 server, or only this host's own"
            " loopback, where no guest's packet may go."
        )
        warnings.append(Problem(text, "Have /etc/resolv.conf name a server on the network."))
    rules = _host_rules()
    if not _ALLOWED.search(rules):
        warnings += [_closed(chain, rules) for chain in closed_chains(rules)][:1]
    return tuple(warnings)


def closed_chains(rules: str) -> Iterator[str]:
    """The chains of `nft list ruleset`, as "ip filter FORWARD", that drop what they do not
    know of all packets that pass through the host; ours are not among them."""
    table = chain = ""
    for line in rules.splitlines():
        words = line.split()
        if words[:1] == ["table"]:
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif re.search(r"hook forward .*policy drop", line) and table != f"inet {firewall.TABLE}":
            yield f"{table} {chain}"


def _pool_problem(pool: IPv4Network) -> Problem | None:
    """Whether somebody else uses addresses of the pool."""
    fix = "Set NEXUS_NETWORK to another one, which nothing else on this host uses."
    if pool.overlaps(IPv4Network(firewall.GUESTS)):
        text = (
            f"The network for VMs ({pool}) has the addresses that guests see ({firewall.GUESTS})."
        )
        return Problem(text, fix)
    for interface, address in host_addresses():
        if address in pool and not is_host_end(interface):
            text = f"{interface} has {address}, which is in the network for VMs ({pool})."
            return Problem(text, fix)
    return None


def _trial_problem(pool: IPv4Network) -> Problem | None:
    end = IPv4Interface((pool.network_address + 1, CABLE))
    rules = firewall.host_rules(pool, _SOME_SERVER) + firewall.remove_host_rules()
    commands = ["link add nx0 group 1 type veth peer name up0", *guest_commands(end, 0)]

    def make_one() -> None:
        run_together(ip_job(commands), nft_job(rules + firewall.guest_rules(end.ip)))

    try:
        in_network(syscalls.leave_network, make_one)
    except (Broken, OSError) as error:
        words = error.detail if isinstance(error, Broken) else str(error)
        return Problem(
            f"This host's kernel makes no networks for VMs: {words}",
            "Load its modules veth, tun, nf_tables and nft_chain_nat, or take a kernel with them.",
            "modprobe -a veth tun nf_tables nft_chain_nat nft_ct nft_masq nft_reject_inet",
        )
    return None


def _host_rules() -> str:
    nft = find_program("nft")
    if nft is None:
        return ""
    done = subprocess.run(
        [nft, "list", "ruleset"], capture_output=True, text=True, timeout=PROGRAM_SECONDS
    )
    return done.stdout


def _closed(chain: str, rules: str) -> Problem:
    """In the words of whoever made the chain."""
    if chain == "ip filter FORWARD":  # iptables: Docker, ufw, libvirt
        first = "DOCKER-USER" if "chain DOCKER-USER" in rules else "FORWARD"
        out, back = (
            f"iptables -I {first} -i nx+ -j ACCEPT",
            f"iptables -I {first} -o nx+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        )
    else:
        out, back = (
            f"nft insert rule {chain} iifname 'nx*' accept",
            f"nft insert rule {chain} oifname 'nx*' ct state related,established accept",
        )
    return Problem(
        f"The host's firewall ({chain}) drops what it does not know, also VMs' packets.",
        "Let them pass, and have that done again after the firewall's own start.",
        f"{out} && {back}",
    )
