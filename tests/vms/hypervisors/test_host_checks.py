"""What a host is told that it lacks for jails and for their networks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from vms.hypervisors.base import Problem
from vms.hypervisors.firecracker import netns, network_check, syscalls
from vms.hypervisors.firecracker.binary import FirecrackerBinary
from vms.hypervisors.firecracker.jail import jail_problem
from vms.hypervisors.firecracker.netns import find_program, in_network, ip_job, run_together
from vms.hypervisors.firecracker.network import DEFAULT_POOL
from vms.hypervisors.firecracker.network_check import (
    closed_chains,
    network_problem,
    network_warnings,
)
from vms.hypervisors.firecracker.resolver import find_resolver

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
needs_nft = pytest.mark.skipif(
    os.geteuid() != 0 or not find_program("nft") or not Path("/dev/net/tun").exists(),
    reason="networks need root, nftables and /dev/net/tun",
)

BINARY = FirecrackerBinary(Path("/releases/firecracker"), Path("/releases/jailer"), "1.12.1")
SERVER = IPv4Address("203.0.113.2")


def text_of(problem: Problem | None) -> str:
    assert problem is not None
    assert problem.fix
    return problem.text


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (root / "cgroup.subtree_control").write_text("")
    return root


# Jails


@needs_root
def test_a_host_that_can_jail(tmp_path: Path, groups: Path) -> None:
    assert jail_problem(BINARY, tmp_path, groups) is None
    assert jail_problem(None, tmp_path, groups) is None, "a release is another matter"


def test_not_root(tmp_path: Path, groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "not run as root" in text_of(jail_problem(BINARY, tmp_path, groups))
    assert "not run as root" in text_of(network_problem(DEFAULT_POOL))


@needs_root
def test_a_release_without_its_jailer(tmp_path: Path, groups: Path) -> None:
    lonely = FirecrackerBinary(Path("/releases/firecracker"), None, "1.12.1")
    assert "without its jailer" in text_of(jail_problem(lonely, tmp_path, groups))


@needs_root
def test_control_groups_of_version_1(tmp_path: Path, groups: Path) -> None:
    (groups / "cgroup.controllers").unlink()
    assert "version 2" in text_of(jail_problem(BINARY, tmp_path, groups))


@needs_root
def test_a_controller_is_missing(tmp_path: Path, groups: Path) -> None:
    (groups / "cgroup.controllers").write_text("cpu pids\n")
    assert "lack: memory." in text_of(jail_problem(BINARY, tmp_path, groups))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    made: list[Path] = []

    def make(name: str, options: str) -> Path:
        path = tmp_path / name
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
        made.append(path)
        return path

    yield make
    for path in made:
        syscalls.unmount(path)


@needs_root
@pytest.mark.parametrize(
    ("options", "remedy"),
    [("nodev", "dev"), ("noexec", "exec"), ("nodev,noexec", "dev,exec")],
)
def test_a_file_system_for_no_devices_or_programs(
    mount: Callable[[str, str], Path], groups: Path, options: str, remedy: str
) -> None:
    data = mount("data", options)
    (data / "vms").mkdir()
    problem = jail_problem(BINARY, data / "vms", groups)
    assert options.replace(",", " and ") in text_of(problem)
    assert problem
    assert problem.command == f"mount -o remount,{remedy} {data}"
    subprocess.run(problem.command.split(), check=True)
    assert jail_problem(BINARY, data / "vms", groups) is None


@needs_root
def test_control_groups_that_are_read_only(
    mount: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = mount("groups", "rw")
    (path / "cgroup.controllers").write_text("cpu memory pids\n")
    (path / "cgroup.subtree_control").touch()
    assert jail_problem(BINARY, tmp_path, path) is None
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
    assert "read-only" in text_of(jail_problem(BINARY, tmp_path, path))


@needs_root
@pytest.mark.parametrize(
    ("container", "said"),
    [
        (["setpriv", "--bounding-set=-mknod"], "it lacks CAP_MKNOD."),
        (["unshare", "--user", "--map-root-user"], "it lacks the host's user IDs."),
    ],
)
def test_root_of_a_container(tmp_path: Path, groups: Path, container: list[str], said: str) -> None:
    program = (
        "import sys; from pathlib import Path; from vms.hypervisors.firecracker import jail\n"
        "print(jail.jail_problem(None, Path(sys.argv[1]), Path(sys.argv[2])).text)"
    )
    argv = [*container, sys.executable, "-c", program, str(tmp_path), str(groups)]
    assert said in subprocess.check_output(argv, text=True)


# Networks


@needs_nft
def test_a_host_that_can_make_networks() -> None:
    assert in_network(syscalls.leave_network, lambda: network_problem(DEFAULT_POOL)) is None


@needs_root
@pytest.mark.parametrize("program", ["ip", "nft"])
def test_a_program_is_missing(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    find = netns.find_program
    monkeypatch.setattr(
        network_check, "find_program", lambda name: None if name == program else find(name) or name
    )
    problem = network_problem(DEFAULT_POOL)
    assert {"ip": "iproute2", "nft": "nftables"}[program] in text_of(problem)


@needs_nft
def test_no_tap_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(network_check, "_TUN", tmp_path / "tun")
    assert "tun" in text_of(network_problem(DEFAULT_POOL))


@needs_nft
def test_a_kernel_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_check, "guest_commands", lambda *arguments: ["link add bad"])
    problem = in_network(syscalls.leave_network, lambda: network_problem(DEFAULT_POOL))
    assert "makes no networks" in text_of(problem)


@needs_nft
def test_a_pool_that_is_somebodys() -> None:
    def look() -> Problem | None:
        run_together(ip_job(["link set lo up", "addr add 10.213.7.7/24 dev lo"]))
        return network_problem(DEFAULT_POOL)

    assert "lo has 10.213.7.7" in text_of(in_network(syscalls.leave_network, look))


@needs_nft
def test_a_pool_with_the_guests_own_addresses() -> None:
    assert "guests see" in text_of(network_problem(IPv4Network("10.0.0.0/16")))


FIREWALL = """\
table ip filter {
  chain INPUT {
    type filter hook input priority filter; policy drop;
  }
  chain FORWARD {
    type filter hook forward priority filter; policy drop;
  }
}
"""


@needs_nft
def test_a_firewall_that_drops_what_guests_send() -> None:
    def look() -> list[tuple[Problem, ...]]:
        _shell("nft -f -", FIREWALL.replace("ip filter", "inet mine"))
        before = network_warnings(SERVER)
        _shell(before[0].command)
        return [before, network_warnings(SERVER)]

    (problem,), after = in_network(syscalls.leave_network, look)
    assert "inet mine FORWARD" in problem.text
    assert after == ()


@needs_nft
@pytest.mark.parametrize(
    ("rules", "chain"),
    [(FIREWALL, "FORWARD"), (FIREWALL + "add chain ip filter DOCKER-USER\n", "DOCKER-USER")],
)
def test_a_firewall_of_iptables(rules: str, chain: str) -> None:
    def look() -> tuple[Problem, ...]:
        _shell("nft -f -", rules)
        return network_warnings(SERVER)

    (problem,) = in_network(syscalls.leave_network, look)
    assert problem.command.startswith(f"iptables -I {chain} -i nx+ -j ACCEPT && iptables -I")


def _shell(command: str, text: str = "") -> None:
    subprocess.run(["sh", "-c", command], input=text, text=True, check=True)


def test_chains_that_drop_what_passes() -> None:
    ours = FIREWALL.replace("ip filter", "inet nexus")
    assert list(closed_chains(ours + FIREWALL)) == ["ip filter FORWARD"]


@needs_root
def test_no_dns_is_told() -> None:
    problems = in_network(syscalls.leave_network, lambda: network_warnings(None))
    assert "no DNS" in problems[0].text


# The host's resolver


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["nameserver 192.0.2.1\nnameserver 192.0.2.2\n"], "192.0.2.1"),
        (["# nameserver 192.0.2.9\nsearch example.org\n  nameserver\t192.0.2.1 \n"], "192.0.2.1"),
        (["nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n"], "192.0.2.1"),
        (["nameserver ::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\n"], "192.0.2.1"),
        (["nameserver 127.0.0.1\nnameserver 192.0.2.1\n"], "192.0.2.1"),
        (["nameserver 127.0.0.1\n"], None),
        (["nameserver 0.0.0.0\n"], None),
        (["nameserver\nnameserver nonsense\n\xff\n"], None),
        ([], None),
    ],
)
def test_the_resolver(tmp_path: Path, files: list[str], found: str | None) -> None:
    paths = [tmp_path / "resolv.conf", tmp_path / "systemd.conf"]
    for path, text in zip(paths, files, strict=False):
        path.write_text(text, encoding="latin-1")
    assert find_resolver(*paths) == (found and IPv4Address(found))
