"""Which addresses a download may come from, decided before anything is sent there.

What an operator has configured may be anywhere, so that mirrors on the local network work. What
a server redirects to may not: it must be a public address, unless it is the same server. A name
is resolved once, and the address that was judged is the one that is connected to.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore2

from nexus_site.core.errors import Broken

_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True)
class Address:
    """An http or https URL in its parts; what is connected to is exactly ``host``."""

    scheme: str
    host: str
    port: int
    target: str  # path and query

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def shown(self) -> str:
        """The URL for people, without a query that may hold a secret."""
        return f"{self._authority}{self.target.partition('?')[0]}"

    @property
    def host_header(self) -> str:
        return self._authority.partition("://")[2]

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    def join(self, location: str) -> str:
        """The URL that ``location`` (a redirect's, perhaps relative) means here."""
        return urljoin(f"{self._authority}{self.target}", location)


def parse_url(url: str) -> Address:
    """The address that ``url`` means. Raises ``ValueError`` with the rule that it breaks."""
    if not url.isascii() or any(char <= " " or char == "\x7f" for char in url):
        raise ValueError("A URL has no blanks and no letters beyond ASCII; escape them.")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("A URL begins with https:// or http://.")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError("A URL must not carry a user name or a password.")
    if not parts.hostname or "\\" in parts.netloc:
        raise ValueError("The URL names no server.")
    port = parts.port if parts.port is not None else _PORTS[parts.scheme]
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.scheme, parts.hostname, port, target)


def redirected(here: Address, location: str) -> Address:
    """Where a redirect from ``here`` leads. Raises ``Broken`` where it must not be followed."""
    try:
        there = parse_url(here.join(location))
    except ValueError as error:
        raise refused(here, location, str(error)) from error
    if (here.scheme, there.scheme) == ("https", "http"):
        raise refused(here, location, "It leads from https to http.")
    return there


def refused(here: Address, location: str, reason: str) -> Broken:
    """The error for a redirect that is not followed."""
    return Broken(
        f"{here.host} redirects to where a download must not go. {reason}",
        detail=f"{here.shown} → {location[:500]}",
        hint="If that server is right, configure its URL in place of this one.",
        code="redirect-refused",
    )


class PrivateAddress(Exception):
    """The name resolves to an address that only an operator may have configured."""


class TooSlow(httpcore2.ReadTimeout):
    """The server sends less than it must."""


@dataclass
class CheckedBackend(httpcore2.NetworkBackend):
    """Opens connections to judged addresses, and watches how fast they send.

    ``anywhere``: the address was configured and need not be public. A server that sends fewer
    than ``minimum_rate`` bytes a second while ``window`` seconds are spent waiting for it is
    too slow.
    """

    anywhere: bool
    minimum_rate: float
    window: float

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        failure: httpcore2.ConnectError | httpcore2.ConnectTimeout | None = None
        for address in self._resolve(host, port):
            try:
                stream = httpcore2.SyncBackend().connect_tcp(address, port, timeout)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return WatchedStream(stream, self.minimum_rate, self.window)
        raise failure or httpcore2.ConnectError(f"{host} has no address")

    def _resolve(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", "") or error
            raise httpcore2.ConnectError(f"its name cannot be resolved ({reason})") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self.anywhere and not all(map(is_public, addresses)):
            raise PrivateAddress(", ".join(addresses))
        return addresses


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, also where it is wrapped in IPv6."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


class WatchedStream(httpcore2.NetworkStream):
    """A connection that raises ``TooSlow``; only time spent waiting for the server counts."""

    def __init__(self, stream: httpcore2.NetworkStream, minimum_rate: float, window: float) -> None:
        self._stream, self._rate, self._window = stream, minimum_rate, window
        self._waited, self._received = 0.0, 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        began = time.monotonic()
        try:
            data = self._stream.read(max_bytes, timeout)
        finally:
            self._waited += time.monotonic() - began
        self._received += len(data)
        if self._waited >= self._window:
            if data and self._received < self._rate * self._waited:
                raise TooSlow(f"{self._received} bytes in {self._waited:.0f} s")
            self._waited, self._received = 0.0, 0
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        secure = self._stream.start_tls(ssl_context, server_hostname, timeout)
        return WatchedStream(secure, self._rate, self._window)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
