"""Networks of jailed VMs, for real: a guest that calls out, and all that it must not reach."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from guest_agent.messages import Network as GuestNetwork
from nexus_site.core.errors import Broken
from tests.vms.hypervisors import networks
from tests.vms.hypervisors.networks import INTERNET, METADATA, WAN, Space, World, call, reaches
from vms.hypervisors.base import VmmSpec
from vms.hypervisors.firecracker import firewall, network
from vms.hypervisors.firecracker.jail import FIRST_UID
from vms.hypervisors.firecracker.netns import find_program, host_addresses
from vms.hypervisors.firecracker.network import DEFAULT_POOL, HostNetwork

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not find_program("nft") or not Path("/dev/net/tun").exists(),
    reason="networks need root, nftables and /dev/net/tun",
)

WEB, OWN, DNS = 7000, 8000, 53
SEEN = GuestNetwork()

NewGuest = Callable[[int], Space]


@pytest.fixture
def world() -> Iterator[World]:
    with networks.world() as made:
        yield made


@pytest.fixture
def host_network() -> HostNetwork:
    return HostNetwork(resolver=lambda: INTERNET)


@pytest.fixture
def prepare(world: World, host_network: HostNetwork) -> Iterator[Callable[[int], VmmSpec]]:
    """Makes the network of the VM with this slot on the test's host."""
    made: list[VmmSpec] = []

    def prepare_one(slot: int) -> VmmSpec:
        spec = networks.spec(slot)
        made.append(spec)
        world.host.run(host_network.prepare, spec, FIRST_UID + slot)
        return spec

    yield prepare_one
    for spec in made:
        world.host.run(host_network.cleanup, spec.ref)


@pytest.fixture
def new_guest(prepare: Callable[[int], VmmSpec]) -> Iterator[NewGuest]:
    with ExitStack() as stack:

        def start(slot: int) -> Space:
            spec = prepare(slot)
            netns = network.namespace_of(spec.ref)
            return stack.enter_context(networks.guest(netns, FIRST_UID + slot))

        yield start


def remains(world: World, ref: str) -> list[str]:
    """What there is of a VM's network, and of our rules."""
    interfaces = [name for _, name in world.host.run(socket.if_nameindex)]
    namespaces = [path.name for path in network.NAMESPACES.glob(f"*{ref}*")]
    rules = world.host.run(subprocess.check_output, ["nft", "list", "tables"], text=True)
    return [name for name in interfaces if ref in name] + namespaces + rules.splitlines()


# What a guest reaches


def test_a_guest_reaches_what_the_host_reaches(world: World, new_guest: NewGuest) -> None:
    world.serve(world.internet, str(INTERNET), WEB)
    guest = new_guest(0)
    assert guest.run(call, INTERNET, WEB) == str(WAN)


@pytest.mark.parametrize("udp", [True, False])
def test_a_guest_asks_the_hosts_resolver(world: World, new_guest: NewGuest, udp: bool) -> None:
    world.serve(world.internet, str(INTERNET), DNS, udp=udp)
    guest = new_guest(0)
    assert guest.run(call, SEEN.dns[0], DNS, udp=udp) == str(WAN)


def test_the_resolver_may_be_the_host_itself(world: World, new_guest: NewGuest) -> None:
    """Not on its loopback; no other port of it opens by that."""
    world.serve(world.host, str(WAN), DNS, udp=True)
    world.serve(world.host, str(WAN), OWN)
    guest = new_guest(0)
    namespace_end = DEFAULT_POOL.network_address + 2
    world.host.run(_apply, firewall.host_rules(DEFAULT_POOL, WAN))
    assert guest.run(call, SEEN.dns[0], DNS, udp=True) == str(namespace_end)
    assert not guest.run(reaches, WAN, DNS, udp=True)
    assert not guest.run(reaches, WAN, OWN)


def test_vms_that_run_get_the_resolver_of_the_day(world: World, new_guest: NewGuest) -> None:
    later = INTERNET + 7
    world.internet.ip(f"addr add {later}/24 dev lan0")
    world.serve(world.internet, str(later), DNS)
    guest = new_guest(0)
    assert not guest.run(reaches, SEEN.dns[0], DNS)
    other = networks.spec(1)
    moved = HostNetwork(resolver=lambda: later)
    world.host.run(moved.prepare, other, FIRST_UID)
    try:
        assert guest.run(call, SEEN.dns[0], DNS) == str(WAN)
    finally:
        world.host.run(moved.cleanup, other.ref)


def test_a_host_without_a_resolver_has_networks_all_the_same(world: World) -> None:
    lonely, spec = HostNetwork(resolver=lambda: None), networks.spec(0)
    world.host.run(lonely.prepare, spec, FIRST_UID)
    world.host.run(lonely.cleanup, spec.ref)
    assert remains(world, spec.ref) == []


def test_the_resolver_may_be_that_of_a_cloud(world: World, new_guest: NewGuest) -> None:
    """At the address of its credentials, which stay out of reach."""
    world.serve(world.internet, METADATA, DNS, udp=True)
    world.serve(world.internet, METADATA, WEB)
    guest = new_guest(0)
    world.host.run(_apply, firewall.host_rules(DEFAULT_POOL, IPv4Address(METADATA)))
    assert guest.run(call, SEEN.dns[0], DNS, udp=True) == str(WAN)
    assert not guest.run(reaches, METADATA, WEB)


# What it does not reach


def test_a_guest_does_not_reach_the_host(world: World, new_guest: NewGuest) -> None:
    for address in ("127.0.0.1", str(WAN)):
        world.serve(world.host, address, OWN)
    world.serve(world.host, "0.0.0.0", OWN + 1)
    guest = new_guest(0)
    host_end = DEFAULT_POOL.network_address + 1
    for address in (SEEN.gateway, SEEN.dns[0], str(host_end), str(WAN)):
        for port in (OWN, OWN + 1):
            assert not guest.run(reaches, address, port), address
    assert world.internet.run(call, WAN, OWN), "the service itself must work"
    assert world.host.run(call, host_end, OWN + 1)


def test_a_vmm_does_not_reach_the_host_from_its_namespace(
    world: World, prepare: Callable[[int], VmmSpec]
) -> None:
    world.serve(world.host, "0.0.0.0", OWN)
    netns = Space(network.namespace_of(prepare(0).ref))
    assert not netns.run(reaches, DEFAULT_POOL.network_address + 1, OWN)
    assert netns.run(lambda: Path("/proc/thread-self/net/if_inet6").read_text()) == "", (
        "it has IPv6"
    )


def test_vms_do_not_reach_each_other(world: World, prepare: Callable[[int], VmmSpec]) -> None:
    one, other = (Space(network.namespace_of(prepare(slot).ref)) for slot in (0, 1))
    end = DEFAULT_POOL.network_address + 4 + 2
    world.serve(other, "0.0.0.0", OWN)
    with networks.guest(one.path, FIRST_UID) as guest:
        assert not guest.run(reaches, end, OWN)
    assert not one.run(reaches, end, OWN)
    assert world.host.run(call, end, OWN), "the service itself must work"


def test_nobody_calls_a_guest(world: World, prepare: Callable[[int], VmmSpec]) -> None:
    netns = Space(network.namespace_of(prepare(0).ref))
    world.serve(netns, "0.0.0.0", OWN)
    world.internet.ip(f"route add {DEFAULT_POOL} via {WAN}")
    assert not world.internet.run(reaches, DEFAULT_POOL.network_address + 2, OWN)


def test_a_guest_does_not_get_the_credentials_of_a_clouds_machine(
    world: World, new_guest: NewGuest
) -> None:
    world.serve(world.internet, METADATA, WEB)
    guest = new_guest(0)
    assert world.host.run(call, METADATA, WEB), "the service itself must work"
    assert not guest.run(reaches, METADATA, WEB)


def test_a_guest_does_not_speak_for_others(world: World, new_guest: NewGuest) -> None:
    world.serve(world.internet, str(INTERNET), WEB)
    guest = new_guest(0)
    guest.ip("addr add 10.0.3.15/32 dev eth0")

    def call_as_another() -> bool:
        with socket.socket() as calling:
            calling.settimeout(networks.SILENCE)
            calling.bind(("10.0.3.15", 0))
            return calling.connect_ex((str(INTERNET), WEB)) == 0

    assert not guest.run(call_as_another)


def test_only_the_vms_user_may_have_its_tap(prepare: Callable[[int], VmmSpec]) -> None:
    netns = network.namespace_of(prepare(0).ref)
    with pytest.raises(OSError, match="not permitted"), networks.guest(netns, FIRST_UID + 1):
        pass


def test_other_interfaces_are_left_alone(world: World, prepare: Callable[[int], VmmSpec]) -> None:
    """Even one that is called as ours are."""
    world.host.ip("link set wan0 down", "link set wan0 name nxwan0", "link set nxwan0 up")
    prepare(0)
    world.serve(world.host, str(WAN), OWN)
    assert world.internet.run(call, WAN, OWN)


def test_other_packets_pass_through_the_host(
    world: World, prepare: Callable[[int], VmmSpec]
) -> None:
    world.serve(world.internet, str(INTERNET), WEB)
    world.internet.ip(f"route add 192.0.2.0/24 via {WAN}")
    neighbour = Space(network.namespace_of(prepare(0).ref))
    world.host.ip(
        f"link add lan1 type veth peer name lan2 netns {neighbour.path.name}",
        "addr add 192.0.2.1/24 dev lan1",
        "link set lan1 up",
    )
    neighbour.ip(
        "addr add 192.0.2.2/24 dev lan2",
        "link set lan2 up",
        f"route add {INTERNET} via 192.0.2.1",
    )
    assert neighbour.run(call, INTERNET, WEB) == "192.0.2.2"


# When the namespace's own rules and settings are out of force


def test_the_host_takes_no_addresses_but_the_pools(
    world: World, prepare: Callable[[int], VmmSpec]
) -> None:
    world.serve(world.internet, str(INTERNET), WEB)
    netns = Space(network.namespace_of(prepare(0).ref))
    netns.run(_apply, "delete table inet nexus\n")
    world.internet.ip(f"route add {firewall.GUESTS} via {WAN}")
    world.host.ip(f"route add {firewall.GUESTS} via {DEFAULT_POOL.network_address + 2}")
    with networks.guest(netns.path, FIRST_UID) as guest:
        assert not guest.run(reaches, INTERNET, WEB)


def test_the_host_takes_no_ipv6(world: World, prepare: Callable[[int], VmmSpec]) -> None:
    spec = prepare(0)
    netns = Space(network.namespace_of(spec.ref))
    switch = Path("/proc/sys/net/ipv6/conf/up0/disable_ipv6")
    if not netns.run(switch.exists):
        pytest.skip("the kernel has no IPv6")
    netns.run(switch.write_text, "0")
    world.host.run(Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text, "1")
    world.host.ip(
        f"addr add fd01::1/64 dev nx{spec.ref} nodad", "addr add fd02::1/64 dev wan0 nodad"
    )
    world.internet.ip("addr add fd02::2/64 dev lan0 nodad", "route add default via fd02::1")
    netns.ip("addr add fd01::2/64 dev up0 nodad", "route add default via fd01::1")

    for space in (world.host, world.internet):
        world.serve(space, "::", WEB)
    assert not netns.run(reaches, "fd01::1", WEB)
    assert not netns.run(reaches, "fd02::2", WEB)
    world.host.run(_apply, firewall.remove_host_rules())
    netns.ip("neigh flush dev up0")
    assert netns.run(call, "fd01::1", WEB), "the services themselves must work"
    assert netns.run(call, "fd02::2", WEB)


# What is made, and what is left


def test_it_is_what_qemus_network_shows() -> None:
    assert f"{SEEN.gateway}/24" == firewall.GATEWAY
    assert SEEN.dns[0] == firewall.DNS
    assert IPv4Address(SEEN.address.split("/")[0]) in IPv4Network(firewall.GUESTS)


def test_the_plan_names_tap_and_namespace(world: World, host_network: HostNetwork) -> None:
    spec = networks.spec(3)
    plan = world.host.run(host_network.prepare, spec, FIRST_UID)
    assert (plan.tap, plan.netns) == ("tap0", Path(f"/run/netns/nexus-{spec.ref}"))
    forwards = Path("/proc/sys/net/ipv4/ip_forward")
    assert world.host.run(forwards.read_text) == "1\n"
    world.host.run(host_network.cleanup, spec.ref)
    assert remains(world, spec.ref) == []


def test_cleanup_may_be_repeated_and_leaves_other_vms_alone(
    world: World, host_network: HostNetwork, prepare: Callable[[int], VmmSpec]
) -> None:
    gone, stays = prepare(0), prepare(1)
    for _ in range(2):
        world.host.run(host_network.cleanup, gone.ref)
    assert remains(world, gone.ref) == ["table inet nexus"]
    assert len(remains(world, stays.ref)) == 3


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_cleanup_of_half_a_network(world: World, host_network: HostNetwork, steps: int) -> None:
    ref = networks.spec(0).ref
    end = IPv4Interface("10.213.0.1/30")
    world.host.ip(*network.host_commands(ref, end)[:steps])
    assert remains(world, ref) != []
    world.host.run(host_network.cleanup, ref)
    assert remains(world, ref) == []


def test_a_namespace_that_is_only_a_file(world: World, host_network: HostNetwork) -> None:
    ref = networks.spec(0).ref
    network.namespace_of(ref).touch()
    world.host.run(host_network.cleanup, ref)
    assert remains(world, ref) == []


@pytest.mark.parametrize("broken", ["host_rules", "guest_rules"])
def test_a_failure_leaves_nothing(
    world: World, host_network: HostNetwork, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(firewall, broken, lambda *arguments: "this is no rule\n")
    spec = networks.spec(0)
    with pytest.raises(Broken, match="could not be made") as caught:
        world.host.run(host_network.prepare, spec, FIRST_UID)
    assert "this is no rule" in caught.value.detail
    assert caught.value.code == "network-failed"
    assert remains(world, spec.ref) == []


def test_what_an_earlier_start_left_is_replaced(
    world: World, host_network: HostNetwork, prepare: Callable[[int], VmmSpec]
) -> None:
    spec = prepare(0)
    world.host.run(host_network.prepare, spec, FIRST_UID)
    assert len(remains(world, spec.ref)) == 3


# Addresses


def ends(world: World) -> dict[str, IPv4Address]:
    return {n: a for n, a in world.host.run(host_addresses) if n.startswith("nx")}


def test_slots_choose_addresses(world: World, prepare: Callable[[int], VmmSpec]) -> None:
    made = {f"nx{prepare(slot).ref}": slot for slot in (0, 5, 16384 + 7)}
    assert {made[name]: str(address) for name, address in ends(world).items()} == {
        0: "10.213.0.1",
        5: "10.213.0.21",
        16384 + 7: "10.213.0.29",
    }


def test_no_two_networks_are_the_same(world: World, host_network: HostNetwork) -> None:
    """Also for VMs of two Nexus with the same slots, starting at the same time."""
    world.host.ip("addr add 10.213.0.9/29 dev wan0")
    specs = [networks.spec(slot) for slot in (0, 0, 1, 1)]
    with ThreadPoolExecutor(len(specs)) as threads:
        list(threads.map(lambda spec: world.host.run(host_network.prepare, spec, FIRST_UID), specs))
    addresses = set(ends(world).values())
    for spec in specs:
        world.host.run(host_network.cleanup, spec.ref)
    assert len(addresses) == len(specs)
    assert not addresses & set(IPv4Network("10.213.0.8/30"))


def test_a_full_pool(world: World) -> None:
    small = HostNetwork(IPv4Network("10.214.0.0/30"), resolver=lambda: None)
    first, second = networks.spec(0), networks.spec(1)
    world.host.run(small.prepare, first, FIRST_UID)
    with pytest.raises(Broken, match="All 1 networks"):
        world.host.run(small.prepare, second, FIRST_UID)
    world.host.run(small.cleanup, first.ref)
    assert remains(world, second.ref) == []


def _apply(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
