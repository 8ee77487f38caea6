"""Lists: pages, orders, filters, and as many queries for thirty rows as for three."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from builds.models import Build, Template, TemplateVersion
from nexus_site.core.models import Operation
from tests.api.conftest import make_operation
from tests.api.routes import ROUTES
from tests.factories import (
    make_build,
    make_drive,
    make_image,
    make_kernel,
    make_kernel_build,
    make_pool,
    make_provider,
    make_release,
    make_rootfs,
    make_snapshot,
    make_template,
    make_vm,
    make_warm_template,
    unique_name,
)
from vms.models import VM, Boot, SnapshotPart, VMSnapshot
from vms.states import State
from vms.transitions import move


def make_boot(world, number: int) -> None:
    Boot.objects.create(vm=world.vm, number=number, hypervisor="qemu", kernel=world.kernel)


def make_version(world) -> None:
    template = Template.objects.filter(name="hello").first() or make_template(name="hello")
    number = template.current.number + 1
    TemplateVersion.objects.create(template=template, number=number, rootfs=world.rootfs)


def make_clone() -> None:
    """A drive in a VM, made of a snapshot of a drive in a VM."""
    snapshot = make_snapshot(drive=make_vm().attachments.get().drive)
    make_drive(source_drive=snapshot.drive, source_snapshot=snapshot)


def make_part(vm: VM) -> None:
    """A snapshot that is a part of a VM's, and came after another one."""
    drive = make_snapshot(drive=vm.attachments.get().drive).drive
    whole = VMSnapshot.objects.create(
        name=unique_name(), vm=vm, parent=vm.head, vcpu_count=1, mem_size_mib=128
    )
    vm.head = whole
    SnapshotPart.objects.create(
        vm_snapshot=whole, snapshot=make_snapshot(drive=drive), is_root=True
    )


def make_transition(world) -> None:
    if world.vm.state in (State.CREATED, State.FAILED):
        move(world.vm, State.STARTING, "start requested")
    else:
        move(world.vm, State.FAILED, "it failed")


#: For each list, what makes another row of it.
ROWS = {
    "/vms": lambda world, n: make_vm(),
    "/drives": lambda world, n: make_clone(),
    "/drives/hello/snapshots": lambda world, n: make_snapshot(drive=world.drive),
    "/snapshots": lambda world, n: make_part(make_vm()),
    "/vms/hello/snapshots": lambda world, n: make_part(world.vm),
    "/warm-templates": lambda world, n: make_warm_template(),
    "/pools": lambda world, n: make_pool(ready=n % 3),
    "/images": lambda world, n: make_build(image=make_image(), state=Build.State.SUCCEEDED),
    "/rootfs": lambda world, n: make_rootfs(version=f"4.{n}"),
    "/providers": lambda world, n: make_provider(),
    "/kernels": lambda world, n: make_kernel(),
    "/kernel-builds": lambda world, n: make_kernel_build(),
    "/firecracker/installed": lambda world, n: make_release(f"1.{n}.0"),
    "/templates": lambda world, n: make_template(),
    "/templates/hello/versions": lambda world, n: make_version(world),
    "/builds": lambda world, n: make_build(image=make_image(), state=Build.State.SUCCEEDED),
    "/operations": lambda world, n: make_operation(),
    "/vms/hello/history": lambda world, n: make_transition(world),
    "/vms/hello/boots": lambda world, n: make_boot(world, n + 1),
}
every_list = pytest.mark.parametrize("path", ROWS)


def rows(client, path: str) -> list[dict]:
    """All items, page after page of four."""
    items, cursor = [], ""
    join = "&" if "?" in path else "?"
    while cursor is not None:
        page = client.send("GET", f"{path}{join}limit=4&cursor={cursor}").json()
        assert len(page["items"]) <= 4
        items += page["items"]
        cursor = page["next_cursor"]
    return items


def key(row: dict):
    return row.get("id") or row["number"]


def test_every_list_is_here():
    lists = {r.path.replace("{ref}", "hello") for r in ROUTES if r.name.startswith("list_")}
    assert lists - set(ROWS) == {
        "/images/hello/files",
        "/images/hello/packages",
        "/rootfs/available",
        "/firecracker/releases",
        "/kernels/available",
        "/kernel-scores",
        "/provider-types",
        "/events",
        "/tokens",
        "/vms/hello/sessions",  # what its agent has
        "/metrics/vms",  # tests/api/test_metrics.py counts its queries
    }


@every_list
def test_pages_show_every_row_once(path, world, reader):
    for number in range(10):
        ROWS[path](world, number)
    whole = reader.send("GET", f"{path}?limit=200").json()
    assert whole["next_cursor"] is None
    paged = rows(reader, path)
    assert paged == whole["items"]
    assert len({key(row) for row in paged}) == len(paged) >= 10


@every_list
def test_the_number_of_queries_does_not_grow(path, world, reader):
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert reader.send("GET", path).status_code == 200
        return len(captured)

    reader.send("GET", path)  # the token's last use is written once a minute
    for number in range(3):
        ROWS[path](world, number)
    few = queries()
    for number in range(3, 30):
        ROWS[path](world, number)
    assert queries() == few <= 5


def test_rows_that_come_and_go_between_pages_do_no_harm(world, reader):
    for number in range(6):
        make_vm(name=f"vm-{number}")
    first = reader.send("GET", "/vms?limit=3").json()
    VM.objects.get(name=first["items"][0]["name"]).delete()
    make_vm(name="newcomer")
    rest = rows(reader, "/vms")
    after = reader.send("GET", f"/vms?limit=10&cursor={first['next_cursor']}").json()["items"]
    seen = [row["name"] for row in first["items"] + after]
    assert sorted(seen) == sorted(["hello", *(f"vm-{n}" for n in range(6))])
    assert "newcomer" in [row["name"] for row in rest]


@pytest.mark.parametrize("order", ["name", "-name", "created_at", "-created_at", "state"])
def test_orders(order, world, reader):
    for name in ("b", "d", "a", "c"):
        make_vm(name=name)
    VM.objects.filter(name__in=["d", "c"]).update(state=State.READY)
    found = rows(reader, f"/vms?order_by={order}")
    field = order.removeprefix("-")
    values = [row[field] for row in found]
    assert values == sorted(values, reverse=order.startswith("-"))
    assert len(found) == 5


def test_an_order_that_is_not_there_is_refused_with_what_is(world, reader):
    problem = reader.send("GET", "/vms?order_by=mac").json()
    assert problem["code"] == "order"
    assert problem["hint"] == "It can be ordered by created_at, name, state, state_since."


@pytest.mark.parametrize(
    "cursor",
    ["x", "%F0%9F", "bnVsbA", "W10", "WyJuYW1lIiwiYSIsMV0", "WyItY3JlYXRlZF9hdCIsImEiLDFd", "e30"],
)
def test_a_cursor_that_is_not_ours_is_refused(cursor, world, reader):
    response = reader.send("GET", f"/vms?cursor={cursor}")
    assert (response.status_code, response.json()["code"]) == (422, "cursor")


@pytest.mark.parametrize("limit", ["0", "201", "-1", "many"])
def test_limits_are_kept(limit, world, reader):
    assert reader.send("GET", f"/vms?limit={limit}").status_code == 422


def names(client, path: str) -> list[str]:
    return sorted(row["name"] for row in client.send("GET", path).json()["items"])


def test_filters_of_vms(world, reader):
    other = make_vm(name="other")
    VM.objects.filter(pk=other.pk).update(state=State.READY)
    assert names(reader, "/vms?state=ready") == ["other"]
    assert names(reader, "/vms?name=ELL") == ["hello"]
    assert names(reader, "/vms?image=alpine-3-23") == ["hello"]
    assert names(reader, f"/vms?image={world.image.ref}") == ["hello"]
    assert reader.send("GET", "/vms?image=nope").status_code == 404


def test_filters_of_drives(world, reader):
    make_drive(name="elsewhere")
    assert names(reader, "/drives?image=alpine-3-23") == ["hello", "spare"]
    assert names(reader, "/drives?attached=true") == ["hello"]
    assert names(reader, "/drives?attached=false") == ["elsewhere", "spare"]


def test_filters_of_builds(world, reader):
    failed = make_build(template=world.template, state=Build.State.FAILED)
    make_build()
    found = reader.send("GET", "/builds?state=failed").json()["items"]
    assert [row["id"] for row in found] == [failed.ref]
    found = reader.send("GET", "/builds?template=alpine-3-23").json()["items"]
    assert {row["id"] for row in found} == {failed.ref, world.build.ref}


def test_filters_of_operations(world, reader):
    queued = make_operation(state=Operation.State.QUEUED, ended_at=None, kind="vm.stop")
    about = make_operation(subject_kind="vm", subject_id=world.vm.id, subject_name="hello")
    make_operation(parent=queued, state=Operation.State.QUEUED)

    def ids(query: str) -> list[str]:
        return [row["id"] for row in reader.send("GET", f"/operations?{query}").json()["items"]]

    assert ids("state=queued") == [queued.ref], "parts of others are left out"
    assert ids("kind=vm.stop") == [queued.ref]
    assert ids(f"subject={world.vm.ref}") == [about.ref]
    assert reader.send("GET", "/operations?subject=hello").status_code == 422
