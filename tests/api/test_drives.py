"""Drives, snapshots and the storage over HTTP, with files that are really there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from drives import services
from drives.models import Drive, Snapshot
from nexus_site.core import operations
from nexus_site.core.ids import NexusID
from tests.api.conftest import APIClient, World
from tests.factories import make_drive, make_snapshot

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _own_data_dir(settings: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    settings.NEXUS = settings.NEXUS.model_copy(update={"data_dir": tmp_path / "data"})


@pytest.fixture
def data(world: World, operator: APIClient) -> Drive:
    """An empty drive of 8 MiB with its file."""
    ended(operator.send("POST", "/drives", {"name": "data", "size_mib": 8}))
    return Drive.objects.get(name="data")


def ended(response: Any) -> dict[str, Any]:
    """What became of an accepted change, once a worker has run it."""
    assert response.status_code == 202, response.content
    found: dict[str, Any] = response.json()
    operations.execute(NexusID.parse(found["id"]))
    operation = operations.Operation.objects.get(pk=NexusID.parse(found["id"]))
    assert operation.state == "succeeded", operation.error
    return operation.result


def refused(response: Any, status: int, code: str) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code)
    found: dict[str, Any] = response.json()
    return found


def test_all_about_a_drive(data: Drive, operator: APIClient) -> None:
    ended(operator.send("POST", "/drives/data/snapshots", {"name": "one"}))
    ended(operator.send("POST", "/drives/data/snapshots"))
    ended(operator.send("POST", "/drives", {"snapshot": "one", "name": "old"}))
    shown = operator.send("GET", "/drives/data").json()
    assert (shown["origin"], shown["image"], shown["source"]) == ("empty", None, None)
    assert shown["usage"]["size_bytes"] == 8 * MIB
    assert 0 < shown["usage"]["used_bytes"] < 8 * MIB
    assert shown["snapshots"][0]["name"] == "one"
    assert [row["is_head"] for row in shown["snapshots"]] == [False, True]
    assert shown["head"]["id"] == shown["snapshots"][1]["id"]
    assert [row["name"] for row in shown["clones"]] == ["old"]
    old = operator.send("GET", "/drives/old").json()
    assert (old["origin"], old["source"]["name"]) == ("snapshot", "one")


def test_the_number_of_queries_does_not_grow_with_its_snapshots(
    data: Drive, operator: APIClient
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert operator.send("GET", "/drives/data").status_code == 200
        return len(captured)

    operator.send("GET", "/drives/data")  # the token's last use is written once a minute
    make_snapshot(drive=data)
    few = queries()
    for _ in range(9):
        make_drive(source_snapshot=make_snapshot(drive=data))
    assert queries() == few <= 5


def test_a_drive_whose_file_is_missing_is_shown(world: World, operator: APIClient) -> None:
    assert operator.send("GET", "/drives/spare").json()["usage"] is None
    assert operator.send("GET", "/snapshots/before").json()["usage"] is None


def test_a_drive_is_made_of_one_thing(data: Drive, operator: APIClient) -> None:
    for body in ({}, {"image": "alpine-3-23", "drive": "data"}, {"name": "x"}):
        refused(operator.send("POST", "/drives", body), 422, "drive-source")
    for body in ({"size_mib": 0}, {"size_mib": 1 << 25}, {"sizes": 1}):
        assert operator.send("POST", "/drives", body).status_code == 422
    for field in ("image", "drive", "snapshot"):
        refused(operator.send("POST", "/drives", {field: "nope"}), 404, f"{field}-not-found")
    small = operator.send("POST", "/drives", {"drive": "data", "size_mib": 7})
    refused(small, 422, "drive-too-small")
    refused(operator.send("POST", "/drives", {"drive": "data", "name": "data"}), 409, "name-taken")


def test_a_drive_is_changed(data: Drive, operator: APIClient) -> None:
    body = {"name": "disk", "delete_with_vm": True}
    shown = operator.send("PATCH", "/drives/data", body).json()
    assert (shown["name"], shown["delete_with_vm"]) == ("disk", True)
    assert operator.send("PATCH", "/drives/disk", {}).json() == shown
    refused(operator.send("PATCH", "/drives/disk", {"name": "spare"}), 409, "name-taken")
    refused(operator.send("PATCH", "/drives/disk", {"name": "No"}), 422, "name-rule")
    ended(operator.send("POST", "/drives/disk/resize", {"size_mib": 16}))
    assert operator.send("GET", "/drives/disk").json()["usage"]["size_bytes"] == 16 * MIB
    for size_mib in (8, 15):
        shrunk = operator.send("POST", "/drives/disk/resize", {"size_mib": size_mib})
        refused(shrunk, 422, "drive-too-small")


def test_a_drive_of_a_vm_that_runs_is_not_resized(ready: Any, operator: APIClient) -> None:
    running = operator.send("POST", "/drives/hello/resize", {"size_mib": 9000})
    assert "hello" in refused(running, 409, "vm-runs")["detail"]


def test_a_drive_that_is_needed_stays(data: Drive, world: World, operator: APIClient) -> None:
    attached = refused(operator.send("DELETE", "/drives/hello"), 409, "drive-attached")
    assert (attached["vm"], "“hello”" in attached["detail"]) == (world.vm.ref, True)
    ended(operator.send("POST", "/drives/data/snapshots", {"name": "one"}))
    listed = refused(operator.send("DELETE", "/drives/data"), 409, "drive-has-snapshots")
    assert listed["snapshots"] == ["one"]
    ended(operator.send("DELETE", "/drives/data?with_snapshots=1"))
    assert operator.send("GET", "/drives/data").status_code == 404
    assert operator.send("GET", "/snapshots/one").status_code == 404


def test_a_busy_drive_names_what_it_is_busy_with(data: Drive, operator: APIClient) -> None:
    first = operator.send("POST", "/drives/data/snapshots").json()
    second = refused(operator.send("POST", "/drives/data/snapshots"), 409, "drive-busy")
    assert second["operation"] == first["id"]
    assert Snapshot.objects.filter(drive=data).count() == 1


def test_snapshots(data: Drive, world: World, operator: APIClient) -> None:
    made = ended(operator.send("POST", "/drives/data/snapshots", {"name": "one"}))
    shown = operator.send("GET", "/snapshots/one").json()
    assert shown["id"] == made["snapshot"]
    assert (shown["drive"]["name"], shown["parent"], shown["is_head"]) == ("data", None, True)
    assert (shown["consistency"], shown["state"]) == ("at-rest", "ready")
    assert shown["usage"]["size_bytes"] == 8 * MIB
    of_data = operator.send("GET", "/snapshots?drive=data").json()["items"]
    assert of_data == operator.send("GET", "/drives/data/snapshots").json()["items"]
    assert [row["name"] for row in of_data] == ["one"]
    assert operator.send("GET", "/snapshots?drive=nope").status_code == 404
    renamed = operator.send("PATCH", "/snapshots/one", {"name": "first"}).json()
    assert (renamed["name"], renamed["id"]) == ("first", made["snapshot"])
    refused(operator.send("PATCH", "/snapshots/first", {"name": "before"}), 409, "name-taken")
    taken = operator.send("POST", "/drives/data/snapshots", {"name": "before"})
    refused(taken, 409, "name-taken")
    ended(operator.send("DELETE", "/snapshots/first"))
    assert operator.send("GET", "/snapshots/first").status_code == 404


def test_the_storage(data: Drive, world: World, reader: APIClient) -> None:
    shown = reader.send("GET", "/storage").json()
    assert shown["backend"] in ("btrfs", "reflink", "copy")
    assert shown["pool"] is None
    assert shown["totals"]["drives"] == 3
    by_name = {row["name"]: row for row in shown["drives"]}
    assert by_name["data"]["usage"]["size_bytes"] == 8 * MIB
    assert by_name["spare"] == {"id": world.spare.ref, "name": "spare", "usage": None}
    assert [row["name"] for row in shown["snapshots"]] == ["before"]
    assert 0 < shown["capacity"]["free_bytes"] <= shown["capacity"]["total_bytes"]


def test_a_check_and_its_repair(
    data: Drive, world: World, reader: APIClient, admin: APIClient
) -> None:
    """The world's rows have no files: the check says so, and the repair marks them."""
    orphan = str(NexusID.random())
    services.storage().create(orphan, MIB)
    report = reader.send("GET", "/storage/check").json()
    kinds = {row["name"]: row["kind"] for row in report["problems"]}
    assert kinds == {
        "hello": "missing-drive",
        "spare": "missing-drive",
        "before": "missing-snapshot",
        orphan: "orphan-drive",
    }
    assert (report["drives"], report["snapshots"]) == (2, 0)
    plan = admin.send("POST", "/storage/repair?dry_run=1").json()
    assert plan["title"] == "Repair the storage"
    assert ended(admin.send("POST", "/storage/repair")) == {"repaired": 4}
    assert reader.send("GET", "/storage/check").json()["problems"] == []
    assert reader.send("GET", "/drives/spare").json()["state"] == "missing"


def test_a_pool_is_made_where_there_are_no_drives(world: World, admin: APIClient) -> None:
    there = admin.send("POST", "/storage/init", {"size_mib": 1024})
    assert "Export and delete them" in refused(there, 409, "drives-exist")["hint"]
    for body in ({}, {"size_mib": 0}):
        assert admin.send("POST", "/storage/init", body).status_code == 422
