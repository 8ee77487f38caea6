"""A kernel that was built here becomes what the guests of a server start, in order.

It is the one that `tests.kernels` keeps. Debian's root file system is made once for all modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.server import Server
from nexus_site.core.http import poll
from tests.kernels import built_kernel
from tests.servers import PATIENCE, ctl_fails, pid_of, signed_in

#: The first run on a machine builds the kernel, which takes a quarter of an hour or more.
pytestmark = pytest.mark.timeout(7200)

ALPINE = ("alpine", "3.23")
DEBIAN = ("debian", "bookworm")
CONFLICT = 5  # nexusctl's exit status


@pytest.fixture(scope="module")
def elder(server: Server) -> dict[str, Any]:
    """A VM that ran before the built kernel came; its boot says which one is the default."""
    return new_vm(server, "elder", *ALPINE)


@pytest.fixture(scope="module")
def stock(elder: dict[str, Any]) -> str:
    """The name of the kernel that VMs start with on a new server."""
    return str(elder["last_boot"]["kernel"]["name"])


@pytest.fixture(scope="module")
def built(server: Server, stock: str) -> Iterator[str]:
    """The name of the built kernel, once it is on the server; other modules find it as it was."""
    operation = server.ctl("kernel", "download", "--provider", "local", "--path", built_path())
    name = str(server.get(f"/v1/kernels/{operation['result']['kernel']}")["name"])
    yield name
    for vm in server.get("/v1/vms?limit=200")["items"]:
        server.ctl("vm", "delete", vm["id"], "--force", "--with-snapshots", "--yes")
    server.ctl("kernel", "use", stock)
    if name in kernels(server):
        server.ctl("kernel", "remove", name, "--yes")


def built_path() -> str:
    path = built_kernel()
    assert path is not None, "the rig runs test_firecracker.py"
    return str(path)


def new_vm(server: Server, name: str, *rootfs: str, kernel: str = "") -> dict[str, Any]:
    """A VM that became ready."""
    pin = ("--kernel", kernel) if kernel else ()
    server.ctl("vm", "from-rootfs", *rootfs, "--name", name, "--memory", "256", *pin)
    vm: dict[str, Any] = server.get(f"/v1/vms/{name}")
    assert vm["state"] == "ready"
    return vm


def kernels(server: Server) -> dict[str, dict[str, Any]]:
    """What `kernel installed` lists, by name."""
    return {row["name"]: row for row in server.ctl("kernel", "installed")}


def scores(server: Server, kernel: str) -> dict[str, dict[str, Any]]:
    """Its rows of the scoreboard, by image."""
    return {row["image"]: row for row in server.ctl("kernel", "scores", kernel)}


def sh(server: Server, name: str, script: str) -> str:
    done = server.post(f"/v1/vms/{name}/exec", argv=["sh", "-c", script])
    assert done["exit_code"] == 0, done
    return str(done["stdout"]).strip()


def test_it_is_good_because_it_booted_and_not_yet_the_default(
    server: Server, built: str, stock: str
) -> None:
    rows = kernels(server)
    assert (rows[built]["state"], rows[built]["is_default"]) == ("good", False)
    assert rows[built]["boots"]["qemu"]["seconds"] > 0
    assert rows[stock]["is_default"] is True
    assert "\nCONFIG_PVH=y\n" in server.ctl("kernel", "inspect", built, "--config")["text"]


def test_one_command_makes_it_the_default_and_who_runs_keeps_theirs(
    server: Server, built: str, stock: str, elder: dict[str, Any]
) -> None:
    pid = pid_of(server, elder)
    server.ctl("kernel", "use", built)
    assert [name for name, row in kernels(server).items() if row["is_default"]] == [built]
    assert pid_of(server, elder) == pid
    assert sh(server, "elder", "uname -r") == kernels(server)[stock]["version"]
    assert kernels(server)[stock]["running"] == ["elder"]
    refused = ctl_fails(server, "kernel", "remove", stock, "--yes")
    assert (refused.returncode, "elder" in refused.stderr) == (CONFLICT, True)


def test_alpine_becomes_ready_on_it(server: Server, built: str) -> None:
    vm = new_vm(server, "alpine", *ALPINE)
    assert vm["last_boot"]["kernel"]["name"] == built
    assert vm["agent"]["kernel"] == kernels(server)[built]["version"]
    assert vm["agent"]["init"] == "openrc"


def test_debian_becomes_ready_on_it_and_systemd_finds_nothing_wrong(
    server: Server, built: str
) -> None:
    vm = new_vm(server, "debian", *DEBIAN)
    assert vm["last_boot"]["kernel"]["name"] == built
    assert vm["agent"]["kernel"] == kernels(server)[built]["version"]
    assert vm["agent"]["init"] == "systemd"
    poll(lambda: server.get("/v1/vms/debian")["agent"]["boot"]["settled"], bool, PATIENCE)
    said = sh(server, "debian", "systemctl is-system-running --wait; systemctl --failed --quiet")
    assert said == "running"


def test_a_pinned_vm_starts_with_its_own(server: Server, built: str, stock: str) -> None:
    vm = new_vm(server, "pinned", *ALPINE, kernel=stock)
    assert (vm["kernel"]["name"], vm["last_boot"]["kernel"]["name"]) == (stock, stock)
    assert vm["agent"]["kernel"] == kernels(server)[stock]["version"]
    assert server.ctl("kernel", "inspect", stock)["pinned"] == ["pinned"]
    server.ctl("vm", "delete", "pinned", "--force", "--yes")


def test_a_drive_comes_and_goes_while_a_guest_runs_on_it(server: Server, built: str) -> None:
    """All that this takes is built in."""
    server.ctl("drive", "create", "--size", "64MiB", "--name", "kernel-cargo")
    for name in ("alpine", "debian"):
        assert server.get(f"/v1/vms/{name}")["hotplug_problem"] == ""
        server.ctl("drive", "attach", "kernel-cargo", name, "--data")
        assert sh(server, name, "mount /dev/sda /mnt; ls /mnt; umount /mnt") == "lost+found"
        server.ctl("drive", "detach", "kernel-cargo")
        assert sh(server, name, "grep -c sda /proc/partitions || true") == "0"
    server.ctl("drive", "delete", "kernel-cargo", "--yes")


def test_a_boot_that_failed_counts(server: Server, built: str, tmp_path: Path) -> None:
    """A guest whose root holds no file system says no hello."""
    disk = tmp_path / "disk.img"
    disk.write_bytes((b"\0" * 510 + b"\x55\xaa").ljust(1 << 20))  # as with a partition table
    server.ctl("drive", "import", str(disk), "--name", "rootless")
    ctl_fails(server, "vm", "create", "--drive", "rootless", "--name", "rootless", "--start")
    row = scores(server, built)[""]
    assert (row["boots"], row["failures"], row["p50"], row["p95"]) == (1, 1, None, None)


def test_its_numbers_are_shown(server: Server, built: str, stock: str) -> None:
    rows, look = scores(server, built), signed_in(server)
    board, page = look("/kernels/"), look(f"/kernels/{kernels(server)[built]['id']}/")
    for name in ("alpine", "debian"):
        vm = server.get(f"/v1/vms/{name}")
        row = rows[vm["image"]["name"]]
        assert (row["hypervisor"], row["boots"], row["failures"]) == ("qemu", 1, 0)
        assert row["p50"] == row["p95"] == round(vm["last_boot"]["seconds_to_hello"], 3)
        for html in (board, page):
            *counts, half = cells(html, vm["image"]["name"])[-4:-1]
            assert counts == ["1", "0"]
            assert half.endswith(" s")
            assert float(half.removesuffix(" s")) == pytest.approx(row["p50"], abs=0.0051)
    assert scores(server, stock), "those of the kernel before stay"


def cells(html: str, image: str) -> list[str]:
    """The texts of the last row of a table in which this image is named."""
    rows = [row for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL) if f">{image}<" in row]
    return [re.sub(r"<[^>]*>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", rows[-1])]


def test_a_start_takes_what_is_the_default_then(
    server: Server, built: str, elder: dict[str, Any]
) -> None:
    server.ctl("vm", "restart", "elder")
    assert sh(server, "elder", "uname -r") == kernels(server)[built]["version"]


def test_it_stays_while_vms_run_it_and_goes_after(server: Server, built: str, stock: str) -> None:
    alpine = server.get("/v1/vms/alpine")
    pid = pid_of(server, alpine)
    refused = ctl_fails(server, "kernel", "remove", built, "--yes")
    assert (refused.returncode, "default" in refused.stderr) == (CONFLICT, True)
    server.ctl("kernel", "use", stock)
    refused = ctl_fails(server, "kernel", "remove", built, "--yes")
    assert refused.returncode == CONFLICT
    assert all(name in refused.stderr for name in ("alpine", "debian", "elder"))
    assert pid_of(server, alpine) == pid
    assert sh(server, "alpine", "uname -r") == kernels(server)[built]["version"]
    for name in ("alpine", "debian", "elder"):
        server.ctl("vm", "stop", name, "--force")
    server.ctl("kernel", "remove", built, "--yes")
    assert built not in kernels(server)
    assert not (server.data_dir / "assets/kernels" / built).exists()
    server.ctl("vm", "start", "alpine")
    assert server.get("/v1/vms/alpine")["last_boot"]["kernel"]["name"] == stock
