"""A small world of network namespaces: a host, the Internet, and guests behind their taps.

    [internet] 203.0.113.2 --- wan0 203.0.113.1 [host] --- nx… [nexus-…] tap0 ~~~ eth0 [guest]

Nothing here touches the network of the machine that runs the tests.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ParamSpec, TypeVar

from guest_agent.messages import Network as GuestNetwork
from tests.forked import start_forked
from vms.hypervisors.base import VmmSpec
from vms.hypervisors.firecracker import syscalls
from vms.hypervisors.firecracker.netns import in_network, ip_job, run_together

INTERNET, WAN = IPv4Address("203.0.113.2"), IPv4Address("203.0.113.1")
METADATA = "169.254.169.254"
PATIENCE = 30.0
#: How long something that must not arrive is waited for; a reply takes less than a millisecond.
SILENCE = 1.0

_TUNSETIFF, _TAP, _NO_PI = 0x400454CA, 0x0002, 0x1000

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Space:
    """A network namespace of the test."""

    path: Path

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return in_network(lambda: syscalls.enter_network(self.path), lambda: work(*args, **kwargs))

    def ip(self, *commands: str) -> None:
        self.run(run_together, ip_job(list(commands)))


@dataclass
class World:
    """The host, the Internet, and who serves in them."""

    host: Space
    internet: Space
    servers: list[Server] = field(default_factory=list)

    def serve(self, space: Space, address: str, port: int, *, udp: bool = False) -> None:
        self.servers.append(Server(space, address, port, udp=udp))


class Server:
    """Answers each TCP connection, or UDP packet, with the address it comes from."""

    def __init__(self, space: Space, address: str, port: int, *, udp: bool = False) -> None:
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self._socket = space.run(socket.socket, _family(address), kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((address, port))
        if not udp:
            self._socket.listen()
        self._thread = threading.Thread(target=self._packets if udp else self._connections)
        self._thread.start()

    def _connections(self) -> None:
        with suppress(OSError):
            while True:
                connection, caller = self._socket.accept()
                with connection:
                    connection.sendall(caller[0].encode())

    def _packets(self) -> None:
        while True:
            packet, caller = self._socket.recvfrom(2048)
            if not packet:  # by `close`
                return
            self._socket.sendto(caller[0].encode(), caller)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()


def call(address: object, port: int, *, udp: bool = False, timeout: float = PATIENCE) -> str:
    """Who the server there thinks we are; OSError when it cannot be reached."""
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(_family(str(address)), kind) as calling:
        calling.settimeout(timeout)
        calling.connect((str(address), port))
        if udp:
            calling.send(b"?")
        return calling.recv(100).decode()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def reaches(address: object, port: int, *, udp: bool = False) -> bool:
    """Whether anybody answers there."""
    try:
        return bool(call(address, port, udp=udp, timeout=SILENCE))
    except OSError:
        return False


@contextmanager
def world() -> Iterator[World]:
    names = {name: f"nexus-test-{secrets.token_hex(4)}" for name in ("host", "internet")}
    run_together(ip_job([f"netns add {name}" for name in names.values()]))
    host, internet = (Space(Path("/run/netns") / name) for name in names.values())
    made = World(host, internet)
    try:
        host.ip(
            "link set lo up",
            f"link add wan0 type veth peer name lan0 netns {names['internet']}",
            f"addr add {WAN}/24 dev wan0",
            "link set wan0 up",
            f"route add {METADATA} via {INTERNET} dev wan0 onlink",
        )
        internet.ip(
            "link set lo up",
            f"addr add {METADATA}/32 dev lo",
            f"addr add {INTERNET}/24 dev lan0",
            "link set lan0 up",
        )
        yield made
    finally:
        for server in made.servers:
            server.close()
        run_together(ip_job([f"netns del {name}" for name in names.values()]))


@contextmanager
def guest(netns: Path, uid: int) -> Iterator[Space]:
    """A guest whose network device is the tap in `netns`, opened by a VMM that runs as `uid`."""
    name = f"nexus-test-{secrets.token_hex(4)}"
    run_together(ip_job([f"netns add {name}"]))
    space = Space(Path("/run/netns") / name)
    device = -1
    try:
        device = space.run(open_tap, "eth0")
        with _vmm(netns, uid, device):
            seen = GuestNetwork()
            space.ip(
                "link set lo up",
                f"addr add {seen.address} dev {seen.interface}",
                f"link set {seen.interface} up",
                f"route add default via {seen.gateway}",
            )
            yield space
    finally:
        if device >= 0:
            os.close(device)
        run_together(ip_job([f"netns del {name}"]))


@contextmanager
def _vmm(netns: Path, uid: int, device: int) -> Iterator[None]:
    process, connection = start_forked(_carry_frames, netns, uid, device)
    try:
        assert connection.poll(PATIENCE), "the VMM says nothing"
        said = connection.recv()
        if said:
            raise OSError(said)
        yield
    finally:
        process.kill()
        process.join(PATIENCE)
        connection.close()


def _carry_frames(netns: Path, uid: int, device: int, ready: Connection) -> None:
    """What a VMM does with its tap: what comes out goes into the guest, and back."""
    syscalls.enter_network(netns)
    tun = os.open("/dev/net/tun", os.O_RDWR)  # a jail has one of its user
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    try:
        tap = open_tap("tap0", tun)
    except OSError as error:
        ready.send(str(error))
        return
    ready.send("")
    other = {tap: device, device: tap}
    while True:
        for fd in select.select([tap, device], [], [])[0]:
            with suppress(OSError):  # the other end is down
                os.write(other[fd], os.read(fd, 65536))


def open_tap(name: str, tun: int | None = None) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR) if tun is None else tun
    request = struct.pack("16sH22x", name.encode(), _TAP | _NO_PI)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError:
        os.close(fd)
        raise
    return fd


def spec(slot: int, ref: str = "") -> VmmSpec:
    """Of a VM of which only the network is made."""
    return VmmSpec(
        vm_dir=Path("/nowhere"),
        ref=ref or secrets.token_hex(7)[:13],
        slot=slot,
        name="test",
        vcpu_count=1,
        mem_size_mib=128,
        kernel=Path("/nowhere"),
        initrd=None,
        disks=(),
        mac="02:00:00:00:00:01",
    )
