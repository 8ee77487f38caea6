"""VMs on Firecracker as a person sees them, where KVM runs guests. One VM, in order; then two
on the kernel that was built here.

The first is booted four times, no more: in the rig a boot may take a minute.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.server import Server, running_server
from nexus_site.core.http import poll
from tests.kernels import INSTALL, built_kernel
from tests.live.guests import apart, inside
from tests.nexusctl.terminals import terminal
from tests.rig import build, host
from tests.servers import PATIENCE, ctl_fails, history, kill, pid_of, vmms, wait_for_state

pytestmark = [
    pytest.mark.skipif(host.firecracker() is None, reason="KVM runs no guests here; the rig does"),
    pytest.mark.xdist_group("firecracker"),
]

JAILED_FROM = 2_000_000_000
#: Emulated hosts are slow, and their guests are slower.
PATIENT = {
    "NEXUS_HEARTBEAT_INTERVAL": "2",
    "NEXUS_HEARTBEAT_TIMEOUT": "60",
    "NEXUS_KVM_TRIAL_SECONDS": "300",
    "NEXUS_AGENT_READY_TIMEOUT": "900",
    "NEXUS_SHUTDOWN_TIMEOUT": "300",
    "NEXUS_TIMEOUT": "300",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A Nexus with a release of Firecracker, which it found on this machine."""
    with running_server(**PATIENT) as server:
        programs = host.firecracker()
        server.ctl("firecracker", "download", "--provider", "local", "--path", str(programs))
        yield server
        left = vmms(server)
    assert not any(process.is_running() for process in left), "a VMM outlived its VM"


def test_where_kvm_runs_guests_a_vm_runs_on_firecracker(server: Server, vm: dict[str, Any]) -> None:
    boot = server.get(f"/v1/vms/{vm['id']}/boots")["items"][0]
    (release,) = server.get("/v1/firecracker/installed")["items"]
    assert (boot["hypervisor"], boot["accelerator"]) == ("firecracker", "kvm")
    assert boot["hypervisor_version"] == release["version"]
    assert "said hello after" in history(server, vm["id"])[-1]["reason"]


def test_its_vmm_is_jailed(server: Server, vm: dict[str, Any]) -> None:
    status = Path(f"/proc/{pid_of(server, vm)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["Uid"].split()[0]) > JAILED_FROM
    assert (fields["Seccomp"], fields["CapEff"].strip("0")) == ("2", "")
    group = Path("/sys/fs/cgroup/nexus-vms", vm["id"])
    assert int((group / "memory.max").read_text()) < 2**30
    assert int((group / "pids.max").read_text()) < 1000


def test_it_goes_on_without_nexus_and_has_the_network_that_it_would_have_on_qemu(
    server: Server, vm: dict[str, Any]
) -> None:
    pid = pid_of(server, vm)
    with inside(server, vm) as guest:
        said = guest.sh(
            "ip -4 address show eth0; ip route; cat /etc/resolv.conf; ping -c1 10.0.2.2"
        )
    assert "inet 10.0.2.15/24" in said
    assert "default via 10.0.2.2" in said
    assert "nameserver 10.0.2.3" in said
    assert "1 packets received" in said
    assert pid_of(server, vm) == pid
    assert server.get(f"/v1/vms/{vm['id']}")["state"] == "ready", "Nexus has found it again"


def test_programs_files_and_shells_are_as_on_qemu(
    server: Server, vm: dict[str, Any], tmp_path: Path
) -> None:
    sent, back = tmp_path / "sent", tmp_path / "back"
    sent.write_bytes(os.urandom(100_000))
    server.ctl("vm", "cp", str(sent), f"{vm['name']}:/root/copied")
    done = server.post(f"/v1/vms/{vm['id']}/exec", argv=["sha256sum", "/root/copied"])
    assert done["stdout"].startswith(hashlib.sha256(sent.read_bytes()).hexdigest())
    server.ctl("vm", "cp", f"{vm['name']}:/root/copied", str(back))
    assert back.read_bytes() == sent.read_bytes()
    with terminal("vm", "shell", vm["name"], env=server.env) as screen:
        screen.read_until(b"# ")
        screen.seen = b""
        screen.type("tty\r")
        screen.read_until(b"\n/dev/pts/")
        screen.read_until(b"# ")
        screen.type("exit 7\r")
        assert screen.ended() == 7


def test_a_snapshot_while_it_runs_is_frozen_by_the_agent(
    server: Server, vm: dict[str, Any]
) -> None:
    operation = server.ctl("vm", "snapshot", vm["name"], "--name", "monday")
    assert "frozen by the agent" in operation["steps"][0]["note"]
    wait_for_state(server, vm["id"], "ready")


def counts(server: Server, vm: dict[str, Any], above: int) -> int:
    """How far the program in the VM has counted, once that is further than ``above``."""

    def look() -> int:
        argv = ["cat", "/tmp/count"]
        return int(server.post(f"/v1/vms/{vm['id']}/exec", argv=argv)["stdout"] or 0)

    return poll(look, lambda count: count > above, PATIENCE)


def test_suspended_it_goes_on_where_it_was(server: Server, vm: dict[str, Any]) -> None:
    script = "n=0; while :; do n=$((n + 1)); echo $n >/tmp/c; mv /tmp/c /tmp/count; sleep 1; done"
    session = server.post(f"/v1/vms/{vm['id']}/exec", argv=["sh", "-c", script], detach=True)
    assert session["id"]
    before = counts(server, vm, 1)
    server.ctl("vm", "suspend", vm["name"])
    shown = server.get(f"/v1/vms/{vm['id']}")
    assert (shown["state"], shown["saved_memory"]["hypervisor"]) == ("suspended", "firecracker")
    assert not vmms(server), "its VMM has ended"
    server.ctl("vm", "resume", vm["name"])
    assert server.get(f"/v1/vms/{vm['id']}")["last_boot"]["resumed_from"] == "suspended"
    assert counts(server, vm, before) < before + PATIENCE, "it did not begin anew"


def test_its_fork_goes_on_as_another_one(server: Server, vm: dict[str, Any]) -> None:
    before = counts(server, vm, 0)
    server.ctl("vm", "fork", vm["name"], "--name", "fork")
    fork = server.get("/v1/vms/fork")
    assert (fork["state"], fork["last_boot"]["hypervisor"]) == ("ready", "firecracker")
    assert counts(server, fork, before) > before
    assert counts(server, vm, before) > before
    who = ["sh", "-c", "hostname; cat /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1"]
    answers = [server.post(f"/v1/vms/{it['id']}/exec", argv=who)["stdout"] for it in (vm, fork)]
    assert all(a != b for a, b in zip(*(text.splitlines() for text in answers), strict=True))
    server.ctl("vm", "delete", "fork", "--force", "--yes")


def test_a_stop_is_graceful_and_its_drive_has_what_was_written(
    server: Server, vm: dict[str, Any]
) -> None:
    server.post(f"/v1/vms/{vm['id']}/exec", argv=["sh", "-c", "echo kept >/root/file"])
    operation = server.ctl("vm", "stop", vm["name"])
    assert operation["steps"][0]["note"] == "the agent shut the guest down"
    assert history(server, vm["id"])[-1]["to_state"] == "stopped"
    drive = vm["drives"][0]["id"]
    (disk,) = (p for p in server.data_dir.glob("drives/**/*") if p.is_file() and drive in str(p))
    read = ["debugfs", "-R", "cat /root/file", disk]
    assert apart(subprocess.check_output, read, stderr=subprocess.DEVNULL) == b"kept\n"


def test_at_rest_it_moves_to_qemu_and_back(server: Server, vm: dict[str, Any]) -> None:
    server.ctl("vm", "update", vm["name"], "--hypervisor", "qemu")
    server.ctl("vm", "start", vm["name"])
    boot = server.get(f"/v1/vms/{vm['id']}/boots")["items"][0]
    assert (boot["hypervisor"], boot["accelerator"]) == ("qemu", "kvm")
    done = server.post(f"/v1/vms/{vm['id']}/exec", argv=["cat", "/root/file"])
    assert done["stdout"] == "kept\n"
    server.ctl("vm", "update", vm["name"], "--hypervisor", "firecracker")
    server.ctl("vm", "restart", vm["name"])
    boot = server.get(f"/v1/vms/{vm['id']}/boots")["items"][0]
    assert boot["hypervisor"] == "firecracker"


def test_a_guest_that_switches_itself_off_is_stopped(server: Server, vm: dict[str, Any]) -> None:
    """Its kernel halts and Firecracker would run on for ever."""
    script = "(sleep 5; poweroff) >/dev/null 2>&1 &"
    done = server.post(f"/v1/vms/{vm['id']}/exec", argv=["setsid", "sh", "-c", script])
    assert done["exit_code"] == 0
    wait_for_state(server, vm["id"], "stopped")
    reasons = [row["reason"] for row in history(server, vm["id"])[-2:]]
    assert reasons[0] == "the guest shut itself down"


def test_a_release_that_vms_run_with_stays(server: Server, vm: dict[str, Any]) -> None:
    server.ctl("vm", "start", vm["name"])
    (release,) = server.get("/v1/firecracker/installed")["items"]
    done = ctl_fails(server, "firecracker", "remove", release["version"], "--yes")
    assert (done.returncode, vm["name"] in done.stderr) == (5, True)


def test_a_killed_vmm_is_a_crash_with_its_reason(server: Server, vm: dict[str, Any]) -> None:
    kill(pid_of(server, vm))
    wait_for_state(server, vm["id"], "crashed")
    crash = history(server, vm["id"])[-1]
    assert "SIGKILL" in crash["reason"]
    assert crash["detail"]["console"], "the guest's last lines"


def test_nothing_is_left_of_it(server: Server, vm: dict[str, Any]) -> None:
    server.ctl("vm", "delete", vm["name"], "--force", "--with-snapshots", "--yes")
    assert not (server.data_dir / "vms" / vm["id"]).exists()
    assert not Path("/sys/fs/cgroup/nexus-vms", vm["id"]).exists()
    assert vm["id"] not in Path("/proc/self/mountinfo").read_text()
    seen = apart(subprocess.check_output, "ip netns; ip link", shell=True, text=True)
    assert vm["id"] not in seen
    uids = {process.uids().real for process in psutil.process_iter()}
    assert max(uids) < JAILED_FROM
    assert not list((server.data_dir / "vms").iterdir())


@pytest.fixture(scope="module")
def built(server: Server) -> str:
    """The name of the kernel that was built from Debian's source, now the default."""
    path = built_kernel()
    if path is None:
        pytest.skip(f"no built kernel came with the rig: {INSTALL}; python -m tests.kernels")
    server.ctl("kernel", "download", "--provider", "local", "--path", str(path))
    (row,) = (row for row in server.ctl("kernel", "installed") if row["provider"] == "local")
    server.ctl("kernel", "use", row["name"])
    return str(row["name"])


def test_the_built_kernel_is_good_on_firecracker(server: Server, built: str) -> None:
    kernel = server.ctl("kernel", "inspect", built)
    assert (kernel["state"], kernel["is_default"]) == ("good", True)
    assert kernel["boots"]["firecracker"]["problem"] == ""


@pytest.mark.parametrize(
    ("distro", "version", "init"), [("alpine", "3.23", "openrc"), ("debian", "bookworm", "systemd")]
)
def test_images_become_ready_on_the_built_kernel(
    server: Server, built: str, distro: str, version: str, init: str
) -> None:
    source: tuple[str, ...] = ("from-rootfs", distro, version)
    if host.is_level1() and distro == "debian":  # it has no mirror
        server.ctl("image", "import", f"/{build.GUEST}", "--name", distro)
        source = ("from-image", distro)
    server.ctl("vm", *source, "--name", distro, "--memory", "256")
    vm = server.get(f"/v1/vms/{distro}")
    assert (vm["state"], vm["agent"]["init"]) == ("ready", init)
    assert vm["agent"]["kernel"] == server.ctl("kernel", "inspect", built)["version"]
    boot = vm["last_boot"]
    assert (boot["hypervisor"], boot["kernel"]["name"]) == ("firecracker", built)
    rows = server.ctl("kernel", "scores", built)
    (score,) = (row for row in rows if row["image"] == vm["image"]["name"])
    assert (score["hypervisor"], score["boots"], score["failures"]) == ("firecracker", 1, 0)
    assert score["p50"] > 0
    server.ctl("vm", "delete", distro, "--force", "--yes")
