"""Drives come and go, and some go with their VM."""

from __future__ import annotations

import pytest

from drives.models import Drive, Snapshot
from nexus_site.core.errors import Conflict
from tests.factories import make_drive, make_image, make_snapshot
from tests.vms.real_drives import (
    done,
    drives_of,
    make_running,
    taken,
)
from vms import services
from vms.models import VM, VMSnapshot

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


def test_a_drive_of_a_running_vm_is_refused_with_the_reason(vm: VM) -> None:
    assert services.hotplug_problem(vm) == ""
    drive = drives_of(vm)[1]
    vm = make_running(vm)
    assert "older Nexus" in services.hotplug_problem(vm)
    for call in (
        lambda: services.attach_drive(vm, make_drive(), is_root=False),
        lambda: services.detach_drive(drive),
    ):
        with pytest.raises(Conflict, match="cannot") as caught:
            call()
        assert caught.value.code == "no-hotplug"
        assert "older Nexus" in caught.value.detail
        assert caught.value.hint == "Stop it first: nexusctl vm stop web"


def test_attaching_says_whether_the_drive_goes_with_the_vm(vm: VM) -> None:
    for wish, before, after in ((None, True, True), (False, True, False), (True, False, True)):
        drive = make_drive(delete_with_vm=before)
        services.attach_drive(vm, drive, is_root=False, delete_with_vm=wish)
        drive.refresh_from_db()
        assert drive.delete_with_vm is after


@pytest.mark.parametrize("state", [Drive.State.DELETING, Drive.State.MISSING])
def test_a_drive_that_is_not_there_is_not_attached(vm: VM, state: Drive.State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.attach_drive(vm, make_drive(state=state), is_root=False)


def test_a_vm_takes_the_drives_along_that_go_with_it(vm: VM) -> None:
    Drive.objects.filter(name="web-data").update(delete_with_vm=False)
    done(services.delete_vm(vm))
    assert list(Drive.objects.values_list("name", flat=True)) == ["web-data"]


def test_a_vm_can_leave_all_drives_behind(vm: VM) -> None:
    done(services.delete_vm(vm, keep_drives=True))
    assert Drive.objects.count() == 2


def test_a_vm_with_snapshots_is_deleted_only_with_them(vm: VM) -> None:
    taken(vm, "monday")
    make_snapshot(drive=drives_of(vm)[0], name="alone")
    with pytest.raises(Conflict, match="has snapshots") as caught:
        services.delete_vm(vm)
    assert caught.value.extra["snapshots"] == ["monday", "alone"]
    assert "--with-snapshots" in caught.value.hint
    done(services.delete_vm(vm, with_snapshots=True))
    left = [kind.objects.count() for kind in (VMSnapshot, Snapshot, Drive)]
    assert left == [0, 0, 0]


def test_drives_that_stay_keep_snapshots_of_their_own(vm: VM) -> None:
    taken(vm, "monday")
    make_snapshot(drive=drives_of(vm)[0], name="alone")
    done(services.delete_vm(vm, keep_drives=True, with_snapshots=True))
    assert list(Snapshot.objects.values_list("name", flat=True)) == ["alone"]
    assert Drive.objects.count() == 2


def test_new_drives_of_a_vm_go_with_it_and_given_ones_do_not() -> None:
    services.create_vm(name="fresh", image=make_image().name)
    assert Drive.objects.get(name="fresh").delete_with_vm
    given = make_drive(name="given")
    services.create_vm(name="other", drive="given")
    given.refresh_from_db()
    assert not given.delete_with_vm
