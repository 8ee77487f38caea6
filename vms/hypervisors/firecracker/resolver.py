"""The DNS server that guests' questions are forwarded to: the host's own."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

#: The second is what systemd-resolved asks itself, where the first names only its stub.
FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


def find_resolver(*files: Path) -> IPv4Address | None:
    """The first server that is not on the loopback, where no guest's packet may go."""
    for file in files or FILES:
        for server in _servers(file):
            if not server.is_loopback and not server.is_unspecified:
                return server
    return None


def _servers(file: Path) -> list[IPv4Address]:
    """Its IPv4 servers; none where there is no such file."""
    found = []
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(IPv4Address(words[1]))
            except AddressValueError:  # IPv6, which guests do not have
                continue
    return found
