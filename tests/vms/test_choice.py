"""What a VM runs on: its wish, the server's setting, and what works here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.models import Setting
from nexus_site.core.operations import rehearse
from tests.factories import make_image, make_kernel, make_vm
from vms import choice, services, shortcuts
from vms.hypervisors.base import Probe, Problem
from vms.models import VM
from vms.shape import shape_in
from vms.states import State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

KERNEL = Path("vmlinux")
FIRECRACKER = Probe("firecracker", True, "kvm", "1.12.1")
NO_JAIL = Probe(
    "firecracker", True, "kvm", "1.12.1", (Problem("Nexus is not root.", "Run it as root."),)
)
NO_FIRECRACKER = Probe(
    "firecracker", False, "", "", (Problem("No release is installed.", "Get one:", "get one"),)
)
QEMU = Probe("qemu", True, "tcg", "7.2", (Problem("There is no /dev/kvm.", "Load it."),))
NO_QEMU = Probe("qemu", False, "", "", (Problem("QEMU is missing.", "apt install qemu"),))


class Driver:
    def __init__(self, probe: Probe) -> None:
        self._probe, self.asked = probe, 0

    def probe(self) -> Probe:
        self.asked += 1
        return self._probe


class Host:
    """A host with drivers that find what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drivers = {"firecracker": Driver(NO_FIRECRACKER), "qemu": Driver(QEMU)}
        monkeypatch.setattr(choice, "driver_for", lambda name, kernel=None: self.drivers[name])
        self.facts: dict[str, Any] = {"release": "1.12.1", "kernel": True, "kvm": True}
        monkeypatch.setattr(choice, "_host", lambda: dict(self.facts))

    def has(self, *probes: Probe) -> None:
        for probe in probes:
            self.drivers[probe.name] = Driver(probe)

    def look(self) -> None:
        for name in self.drivers:
            choice.probe(name)

    @property
    def asked(self) -> int:
        return sum(driver.asked for driver in self.drivers.values())


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def _wish(hypervisor: str = "auto") -> VM:
    return make_vm(hypervisor=hypervisor)


@pytest.mark.parametrize(
    ("found", "chosen", "reason"),
    [
        ((FIRECRACKER, QEMU), "firecracker", "the best that works here"),
        (
            (NO_FIRECRACKER, QEMU),
            "qemu",
            "Firecracker is not usable here: No release is installed",
        ),
        ((NO_JAIL, QEMU), "qemu", "Firecracker has limits here: Nexus is not root"),
        ((NO_JAIL, NO_QEMU), "firecracker", "QEMU is not usable here: QEMU is missing"),
    ],
)
def test_automatic_is_firecracker_where_nothing_is_wrong_with_it(
    host: Host, found: tuple[Probe, ...], chosen: str, reason: str
) -> None:
    host.has(*found)
    choice_made = choice.choose(_wish(), KERNEL)
    assert (choice_made.name, choice_made.reason) == (chosen, reason)


def test_the_server_can_say_what_automatic_is(host: Host, settings: Any) -> None:
    host.has(FIRECRACKER)
    settings.NEXUS = settings.NEXUS.model_copy(update={"hypervisor": "qemu"})
    assert choice.choose(_wish(), KERNEL).reason == "this server's setting"
    assert choice.choose(_wish(), KERNEL).name == "qemu"
    assert choice.choose(_wish("firecracker"), KERNEL).name == "firecracker", "a VM has its own"


@pytest.mark.parametrize(
    ("wish", "text"), [("firecracker", "No release is installed"), ("qemu", "QEMU is missing")]
)
def test_what_is_named_and_not_usable_is_refused_with_the_way_out(
    host: Host, wish: str, text: str
) -> None:
    host.has(NO_FIRECRACKER, NO_QEMU)
    with pytest.raises(Conflict, match=text) as refused:
        choice.choose(_wish(wish), KERNEL)
    assert refused.value.code == "hypervisor-unusable"
    assert refused.value.hint in ("Get one: get one", "apt install qemu")


def test_a_host_with_neither_says_what_qemu_lacks(host: Host) -> None:
    host.has(NO_FIRECRACKER, NO_QEMU)
    with pytest.raises(Conflict, match="QEMU is missing"):
        choice.choose(_wish(), KERNEL)


def test_limits_do_not_keep_a_vm_from_what_it_names(host: Host) -> None:
    host.has(NO_JAIL)
    assert choice.choose(_wish("firecracker"), KERNEL).reason == "the VM wishes for it"


# Without asking


def test_what_workers_found_is_known_without_asking(host: Host) -> None:
    assert choice.foresee("auto") is None, "nobody has looked yet"
    assert choice.expectation("auto") == ("", choice.UNKNOWN)
    host.has(FIRECRACKER)
    host.look()
    asked = host.asked
    known = choice.foresee("auto")
    assert known is not None
    assert known.probe == FIRECRACKER
    found = choice.foresee("qemu")
    assert found is not None
    assert found.probe == QEMU
    assert host.asked == asked


@pytest.mark.parametrize("fact", ["release", "kernel", "kvm"])
def test_a_host_that_has_changed_is_not_known(host: Host, fact: str) -> None:
    host.look()
    assert choice.foresee("auto") is not None
    assert not choice.has_changed()
    host.facts[fact] = "" if fact == "release" else False
    assert choice.foresee("auto") is None
    assert choice.has_changed()


def test_before_the_first_kernel_nobody_says_that_kvm_does_not_work(host: Host) -> None:
    host.facts["kernel"] = False
    host.look()
    choice.require_usable("firecracker")


def test_an_answer_is_written_when_it_is_another(host: Host) -> None:
    host.look()
    at = Setting.objects.get(pk="vms.probe.firecracker").updated_at
    host.look()
    assert Setting.objects.get(pk="vms.probe.firecracker").updated_at == at
    host.has(FIRECRACKER)
    host.look()
    assert Setting.objects.get(pk="vms.probe.firecracker").updated_at > at


def test_the_kernel_is_the_default_one_where_that_is_there(tmp_path: Path, settings: Any) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"data_dir": tmp_path})
    assert choice.default_kernel() is None
    row = make_kernel(is_default=True)
    assert choice.default_kernel() is None, "its file is gone"
    path = tmp_path / "assets" / row.directory / "vmlinux"
    path.parent.mkdir(parents=True)
    path.touch()
    assert choice.default_kernel() == path


def test_a_dry_run_says_what_it_would_be_and_why(host: Host) -> None:
    host.look()
    asked = host.asked
    plan = rehearse(lambda: services.start_vm(_wish()))
    (launch,) = [step for step in plan["steps"] if step["name"] == "launch"]
    assert (launch["action"], launch["note"]) == (
        "run",
        "QEMU: Firecracker is not usable here: No release is installed",
    )
    made_of = make_image()
    plan = rehearse(lambda: shortcuts.from_image("vm", made_of, hypervisor="qemu"))
    (start,) = [step for step in plan["steps"] if step["name"] == "start"]
    assert start["note"] == "QEMU: the VM wishes for it"
    assert host.asked == asked


# Wishes


def test_a_wish_that_cannot_be_fulfilled_is_refused_before_anything_is_done(host: Host) -> None:
    image, vm = make_image(), _wish()
    unknown = _wish("firecracker")
    host.look()
    for refused in (
        lambda: services.create_vm(image=image.name, hypervisor="firecracker"),
        lambda: shortcuts.from_image("vm", image, hypervisor="firecracker"),
        lambda: services.update_vm(vm, hypervisor="firecracker"),
        lambda: services.clone_vm(vm, hypervisor="firecracker"),
        lambda: services.start_vm(unknown),
    ):
        with pytest.raises(Conflict, match="No release is installed"):
            refused()
    vm.refresh_from_db()
    assert (vm.hypervisor, VM.objects.count()) == ("auto", 2)


def test_there_are_two_hypervisors() -> None:
    with pytest.raises(Invalid, match="There is no hypervisor “xen”") as refused:
        services.update_vm(_wish(), hypervisor="xen")
    assert refused.value.hint == "There are: auto, firecracker, qemu."


def test_a_vm_that_runs_may_wish_for_its_next_start_and_keeps_the_rest(host: Host) -> None:
    vm = make_vm(state=State.READY)
    assert services.update_vm(vm, hypervisor="qemu", vcpu_count=vm.vcpu_count).hypervisor == "qemu"
    for name in ("mem_size_mib", "disk_mib_s", "disk_iops"):
        with pytest.raises(Conflict, match="at rest"):
            services.update_vm(vm, **_only(name, 256))


# Limits


def _only(name: str, value: int) -> services.Shape:
    return shape_in({name: value})


@pytest.mark.parametrize("name", ["disk_mib_s", "disk_iops", "network_mib_s"])
def test_limits_are_set_kept_changed_and_taken_away(name: str) -> None:
    services.create_vm(name="web", image=make_image().name, **_only(name, 20))
    assert getattr(VM.objects.get(name="web"), name) == 20
    vm = make_vm()
    assert getattr(services.update_vm(vm, **_only(name, 30)), name) == 30
    assert getattr(services.update_vm(vm, mem_size_mib=128), name) == 30
    services.clone_vm(vm, name="copy")
    assert getattr(VM.objects.get(name="copy"), name) == 30
    assert getattr(services.update_vm(vm, **_only(name, 0)), name) is None


def test_qemus_network_has_no_limit() -> None:
    vm = make_vm(hypervisor="qemu")
    with pytest.raises(Invalid, match="knows no limit"):
        services.update_vm(vm, network_mib_s=10)
    services.update_vm(vm, network_mib_s=10, hypervisor="auto")
    with pytest.raises(Invalid, match="knows no limit"):
        services.update_vm(vm, hypervisor="qemu")


@pytest.mark.parametrize(
    ("name", "value"),
    [("disk_mib_s", -1), ("disk_mib_s", (1 << 20) + 1), ("disk_iops", 10_000_001)],
)
def test_a_limit_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(Invalid, match="limit") as refused:
        services.update_vm(make_vm(), **_only(name, value))
    assert refused.value.extra == {"field": name}
