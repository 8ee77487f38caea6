"""The Firecracker driver with the real Firecracker, as far as that goes without KVM."""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from images.providers.embedded import EmbeddedProvider
from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError
from vms.hypervisors import kvm, monitored
from vms.hypervisors.base import Disk, Exit, Handle, VmmSpec
from vms.hypervisors.firecracker import Firecracker, FirecrackerBinary, api, driver, trial
from vms.hypervisors.firecracker.api import Request
from vms.hypervisors.firecracker.network import HostNetwork

LOGS = {"console.log", "vmm.log", "metrics.log"}

Make = Callable[..., Firecracker]


@pytest.fixture
def make(firecracker: FirecrackerBinary, tmp_path: Path) -> Make:
    """Makes drivers whose VMMs run without a jail, which needs root."""

    def make_driver(
        find: Callable[[], FirecrackerBinary | None] = lambda: firecracker, **options: object
    ) -> Firecracker:
        defaults = {"jailed": False, "network": False}
        return Firecracker(tmp_path / "cache", find, **defaults | options)  # type: ignore[arg-type]

    return make_driver


@pytest.fixture
def spec(tmp_path: Path, vm_dir: Path) -> VmmSpec:
    """Its kernel has an ELF header for this host, and nothing more."""
    kernel, disk = tmp_path / "vmlinux", tmp_path / "disk"
    machine = {"x86_64": 62, "aarch64": 183}[os.uname().machine]
    header = b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + struct.pack("<H", machine)
    kernel.write_bytes(header + bytes(1000))
    disk.write_bytes(bytes(2**20))
    return VmmSpec(
        vm_dir=vm_dir,
        ref="aaaaaaaaaayds",
        slot=1,
        name="one",
        vcpu_count=1,
        mem_size_mib=128,
        kernel=kernel,
        initrd=None,
        disks=(Disk("root", disk),),
        mac="52:54:00:00:00:01",
    )


@pytest.fixture
def kvm_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the driver knows."""
    monkeypatch.setattr(driver, "kvm_problem", lambda *arguments: None)


@pytest.fixture
def configured(
    make: Make, spec: VmmSpec, kvm_works: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Firecracker, Handle]]:
    """A VMM that was told everything but to start the guest's CPUs."""
    monkeypatch.setattr(driver, "START", Request("GET", "/"))
    vmm = make()
    handle = vmm.launch(spec)
    yield vmm, handle
    vmm.kill(handle)
    vmm.cleanup(spec.vm_dir)


def test_a_release_is_missing(make: Make, spec: VmmSpec) -> None:
    vmm = make(lambda: None)
    probe = vmm.probe()
    assert (probe.name, probe.usable, probe.accelerator) == ("firecracker", False, "")
    assert probe.problems[0].command == "nexusctl firecracker download"
    with pytest.raises(Broken, match="No Firecracker release") as caught:
        vmm.launch(spec)
    assert caught.value.code == "firecracker-missing"
    assert list(spec.vm_dir.iterdir()) == []


def test_a_release_is_too_old(make: Make, spec: VmmSpec, firecracker: FirecrackerBinary) -> None:
    vmm = make(lambda: replace(firecracker, version="1.4.0"))
    assert "too old" in vmm.probe().problems[0].text
    with pytest.raises(Broken, match="too old"):
        vmm.launch(spec)


@pytest.mark.parametrize("device", ["missing", "closed"])
def test_kvm_cannot_be_opened(
    make: Make, spec: VmmSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    path = tmp_path / "kvm"
    if device == "closed":
        path.touch()
        may = os.access
        monkeypatch.setattr(os, "access", lambda at, mode: at != path and may(at, mode))
    monkeypatch.setattr(trial, "KVM", path)
    probe = make().probe()
    assert not probe.usable
    assert probe.problems[0].text.endswith("so Firecracker cannot start VMs.")
    with pytest.raises(Broken) as caught:
        make().launch(spec)
    assert caught.value.code == "kvm-unusable"
    assert "sudo " in caught.value.hint
    assert list(spec.vm_dir.iterdir()) == []


def test_kvm_is_not_usable_before_a_guest_ran(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "KVM", tmp_path)
    assert "not been tried" in make().probe().problems[0].text


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FirecrackerBinary:
    """A release whose every guest hangs, on a host with a /dev/kvm."""
    (tmp_path / "kvm").touch()
    monkeypatch.setattr(trial, "KVM", tmp_path / "kvm")
    program = tmp_path / "hangs"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    return FirecrackerBinary(program, None, "1.12.1")


def test_a_guest_that_hangs_is_given_up_once_a_boot(
    make: Make, spec: VmmSpec, hanging: FirecrackerBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmm = make(lambda: hanging, kernel=spec.kernel, trial_seconds=0.2)
    first = vmm.probe()
    assert "a guest hung for 0.2 s" in first.problems[0].text
    trials = []
    monkeypatch.setattr(kvm, "run_trial", lambda *words: trials.append(words) or "it failed")
    assert vmm.probe() == first
    monkeypatch.setattr(kvm, "boot_id", lambda: "another boot")
    assert "it failed" in vmm.probe().problems[0].text
    assert len(trials) == 1


def test_a_guest_that_ran_is_enough_for_ever(
    make: Make, spec: VmmSpec, hanging: FirecrackerBinary, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmm = make(lambda: hanging, kernel=spec.kernel)
    monkeypatch.setattr(kvm, "run_trial", lambda *words: "")
    assert vmm.probe().usable
    monkeypatch.setattr(kvm, "boot_id", lambda: "another boot")
    monkeypatch.setattr(kvm, "run_trial", lambda *words: "it failed")
    assert vmm.probe().usable


def test_the_trial_is_bounded_on_the_real_kvm(
    make: Make, tmp_path: Path, firecracker: FirecrackerBinary
) -> None:
    """Whether guests run here or hang: there is an answer."""
    if kvm.access_problem(kvm.KVM, ""):
        pytest.skip("there is no KVM that we may use")
    provider = EmbeddedProvider()
    (offer,) = (offer for offer in provider.list_kernels() if offer.arch == "x86_64")
    provider.fetch_kernel(offer, tmp_path)
    probe = make(kernel=tmp_path / "vmlinux", trial_seconds=1.5).probe()
    assert probe.usable or "a guest hung for 1.5 s" in probe.problems[0].text


@pytest.mark.usefixtures("kvm_works")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vcpu_count": 33}, "The number of vCPUs must be greater than 0"),
        ({"mem_size_mib": 0}, "memory size"),
        ({"kernel_args": ("x" * 3000,)}, "command line"),
    ],
)
def test_what_firecracker_refuses_is_said_in_its_own_words(
    make: Make, spec: VmmSpec, change: dict[str, object], said: str
) -> None:
    with pytest.raises(Broken, match="did not start the guest") as caught:
        make().launch(replace(spec, **change))  # type: ignore[arg-type]
    assert said in caught.value.detail
    assert caught.value.code == "launch-failed"
    assert {path.name for path in spec.vm_dir.iterdir()} <= LOGS
    assert "Running Firecracker" in (spec.vm_dir / "vmm.log").read_text()


@pytest.mark.usefixtures("kvm_works")
def test_a_kernel_that_it_cannot_load(make: Make, spec: VmmSpec) -> None:
    """Its header is right, the rest is not; or else /dev/kvm is no good on this host."""
    with pytest.raises(Broken) as caught:
        make().launch(spec)
    assert caught.value.detail
    assert {path.name for path in spec.vm_dir.iterdir()} <= LOGS


@pytest.mark.usefixtures("kvm_works")
def test_a_spec_that_cannot_run_starts_nothing(make: Make, spec: VmmSpec) -> None:
    with pytest.raises(Invalid):
        make().launch(replace(spec, kernel=spec.disks[0].path))
    assert list(spec.vm_dir.iterdir()) == []


def test_what_it_was_told(configured: tuple[Firecracker, Handle], spec: VmmSpec) -> None:
    _, handle = configured
    (config,) = api.ask(spec.vm_dir, Request("GET", "/vm/config"))
    assert config["boot-source"]["boot_args"].endswith("rw rootflags=rw")
    assert config["drives"][0]["cache_type"] == "Writeback"
    assert config["drives"][0]["path_on_host"] == "lent/disk0"
    assert config["vsock"]["guest_cid"] == 4
    assert handle.accelerator == "kvm"


def test_its_log_and_its_console_are_apart(
    configured: tuple[Firecracker, Handle], spec: VmmSpec
) -> None:
    assert (spec.vm_dir / "console.log").read_text() == ""
    assert "Running Firecracker v" in (spec.vm_dir / "vmm.log").read_text()


def test_its_agent_calls_the_host(configured: tuple[Firecracker, Handle], spec: VmmSpec) -> None:
    vmm, _ = configured
    socket = vmm.agent_socket(spec.vm_dir)
    assert (socket.path, socket.guest_dials, socket.uid) == (
        spec.vm_dir / "v.sock_1024",
        True,
        None,
    )


def test_cleanup_leaves_logs_and_records(
    configured: tuple[Firecracker, Handle], spec: VmmSpec
) -> None:
    vmm, handle = configured
    assert isinstance(vmm.kill(handle), Exit)
    for _ in range(2):
        vmm.cleanup(spec.vm_dir)
        assert {path.name for path in spec.vm_dir.iterdir()} <= {
            *LOGS,
            *["launch.json", "monitor.json", "exit.json"],
        }
    vmm.cleanup(spec.vm_dir / "none")


def test_its_refusals_are_conflicts(configured: tuple[Firecracker, Handle]) -> None:
    vmm, handle = configured
    with pytest.raises(Conflict, match="Firecracker refuses") as caught:
        vmm.pause(handle)
    assert "not supported before starting" in caught.value.detail


def test_answers_of_a_hostile_vmm(
    configured: tuple[Firecracker, Handle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmm, handle = configured
    shape = {"vcpu_count": 1, "mem_size_mib": 128, "track_dirty_pages": True}
    config = {"machine-config": shape, "drives": [], "network-interfaces": [], "balloon": 5}
    shaped = {"state": "Paused", "vmm_version": "1.12.1"} | config
    for answer in ([], {}, {"state": "Paused", "mem_size_mib": "much"}, shaped, 5, None):
        monkeypatch.setattr(api, "ask", lambda root, *calls, said=answer: [said] * len(calls))
        calls: list[Callable[[], None]] = [
            lambda: vmm.balloon(handle, 64),
            lambda: vmm.snapshot(handle, tmp_path / "snapshot"),
        ]
        for call in calls:
            with pytest.raises(NexusError) as caught:
                call()
            assert caught.value.code == "hostile-vmm"


def test_disks_cannot_come_and_go(configured: tuple[Firecracker, Handle], spec: VmmSpec) -> None:
    vmm, handle = configured
    assert "stop the VM first" in vmm.hotplug_problem(spec.vm_dir)
    for change in (
        lambda: vmm.plug(handle, spec.disks[0]),
        lambda: vmm.unplug(handle, "root"),
    ):
        with pytest.raises(Conflict) as caught:
            change()
        assert caught.value.code == "no-hotplug"


class BrokenNetwork(HostNetwork):
    """Fails to be made, and counts how often it was undone."""

    cleaned = 0

    def prepare(self, spec: VmmSpec, uid: int | None) -> None:  # type: ignore[override]
        raise Broken("no network", code="network-failed")

    def cleanup(self, ref: str) -> None:
        self.cleaned += 1


@pytest.mark.usefixtures("kvm_works")
def test_a_network_that_fails_leaves_nothing(make: Make, spec: VmmSpec) -> None:
    network = BrokenNetwork()
    with pytest.raises(Broken, match="no network"):
        make(network=True, networks=network).launch(spec)
    assert network.cleaned == 1
    assert list(spec.vm_dir.iterdir()) == []


FAULTS = ["/machine-config", "/boot-source", "/drives/disk0", "/vsock", "/balloon", "/entropy"]


@pytest.mark.usefixtures("kvm_works")
@pytest.mark.parametrize("path", FAULTS)
def test_a_vmm_that_dies_at_any_step_leaves_nothing(
    make: Make, spec: VmmSpec, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    call = api._call

    def call_or_die(connection: object, request: Request) -> object:
        if request.path == path:
            handle = monitored.adopt(spec.vm_dir)
            assert isinstance(handle, Handle)
            monitored.kill(handle)
        return call(connection, request)  # type: ignore[arg-type]

    monkeypatch.setattr(api, "_call", call_or_die)
    with pytest.raises(Broken, match="killed by signal 9") as caught:
        make().launch(spec)
    assert caught.value.code == "launch-failed"
    assert {name.name for name in spec.vm_dir.iterdir()} <= LOGS


def test_restore_refuses_before_anything_starts(
    make: Make, spec: VmmSpec, kvm_works: None, tmp_path: Path
) -> None:
    with pytest.raises(Invalid) as caught:
        make().restore(spec, tmp_path)
    assert caught.value.code == "snapshot-incompatible"
    assert list(spec.vm_dir.iterdir()) == []
