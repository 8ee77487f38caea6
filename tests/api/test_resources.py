"""What each endpoint gives and takes, by name and by ID."""

from __future__ import annotations

import pytest

from builds.log import log_path
from builds.models import Build, Template
from drives.models import Drive, Snapshot
from images.models import Image
from images.providers.base import RootfsOffer
from nexus_site.core import events
from nexus_site.core.errors import Broken
from nexus_site.core.models import Operation
from vms.models import VM, Attachment, Boot
from vms.outcomes import start_failed
from vms.paths import make_vm_dir
from vms.states import State
from vms.transitions import move

GIB = 1024**3


def by_both(client, kind: str, row) -> dict:
    """The row as the API shows it, the same by its name and by its ID in either case."""
    by_id = client.send("GET", f"/{kind}/{row.ref}")
    assert by_id.status_code == 200
    assert client.send("GET", f"/{kind}/{row.ref.upper()}").json() == by_id.json()
    if hasattr(row, "name"):
        assert client.send("GET", f"/{kind}/{row.name}").json() == by_id.json()
    assert by_id.json()["id"] == row.ref
    return by_id.json()


def test_a_vm(world, reader):
    shown = by_both(reader, "vms", world.vm)
    assert shown["name"] == "hello"
    assert shown["state"] == "created"
    assert shown["mem_size_mib"] == 128
    assert shown["kernel"] is None
    assert shown["image"] == {"id": world.image.ref, "name": "alpine-3-23"}
    assert shown["drives"] == [
        {
            "id": world.drive.ref,
            "name": "hello",
            "size_bytes": 8 * GIB,
            "is_root": True,
            "read_only": False,
            "delete_with_vm": False,
        }
    ]
    assert shown["agent_version"] is None
    assert shown["last_boot"] is None
    assert shown["created_at"].endswith("Z")


def test_a_vm_that_runs(ready, reader):
    VM.objects.filter(pk=ready.pk).update(agent={"agent_version": "0.1.0"})
    for number in (1, 2):
        Boot.objects.create(vm=ready, number=number, hypervisor="qemu", accelerator="tcg")
    shown = reader.send("GET", "/vms/hello").json()
    assert shown["agent_version"] == "0.1.0"
    assert shown["last_boot"]["number"] == 2
    boots = reader.send("GET", "/vms/hello/boots").json()["items"]
    assert [boot["number"] for boot in boots] == [2, 1]


def test_a_vm_without_a_drive(world, reader):
    Attachment.objects.all().delete()
    shown = reader.send("GET", "/vms/hello").json()
    assert (shown["image"], shown["drives"]) == (None, [])


def test_history_carries_the_post_mortem(world, reader):
    with events.acting("user:me"):
        move(world.vm, State.STARTING, "start requested")
    start_failed(
        world.vm, Broken("QEMU is missing.", detail="sh: qemu: not found", hint="Install.")
    )
    created, starting, failed = reader.send("GET", "/vms/hello/history").json()["items"]
    assert [created["from_state"], created["to_state"]] == ["", "created"]
    assert [starting["from_state"], starting["to_state"]] == ["created", "starting"]
    assert (starting["reason"], starting["actor"]) == ("start requested", "user:me")
    assert [failed["from_state"], failed["to_state"]] == ["starting", "failed"]
    assert failed["detail"]["detail"] == "sh: qemu: not found"
    assert failed["detail"]["hint"] == "Install."


def test_the_console_in_pieces(world, reader):
    directory = make_vm_dir(world.vm)
    (directory / "console.log").write_bytes(b"Welcome\nlogin: \xff\n")
    page = reader.send("GET", "/vms/hello/console").json()
    assert page == {"text": "Welcome\nlogin: \ufffd\n", "offset": 0, "next_offset": 17, "size": 17}
    page = reader.send("GET", "/vms/hello/console?offset=8").json()
    assert (page["text"], page["offset"]) == ("login: \ufffd\n", 8)
    page = reader.send("GET", "/vms/hello/console?offset=-3").json()
    assert page["offset"] == 14


def test_the_console_is_waited_for(world, reader, monkeypatch):
    directory = make_vm_dir(world.vm)
    (directory / "console.log").write_bytes(b"old\n")

    def write(_: float) -> None:
        (directory / "console.log").write_bytes(b"old\nnew\n")

    monkeypatch.setattr("nexus_site.core.http.time.sleep", write)
    page = reader.send("GET", "/vms/hello/console?offset=4&wait=60").json()
    assert page["text"] == "new\n"


def test_renaming_and_resizing(world, operator):
    shown = operator.send("PATCH", f"/vms/{world.vm.ref}", {"name": "other", "mem_size_mib": 256})
    assert shown.status_code == 200
    assert (shown.json()["name"], shown.json()["mem_size_mib"]) == ("other", 256)
    same = operator.send("PATCH", "/vms/other", {"name": "other"})
    assert same.status_code == 200, "its own name is not taken"


def test_an_update_is_made_as_a_whole_or_not_at_all(ready, operator):
    response = operator.send("PATCH", "/vms/hello", {"name": "other", "mem_size_mib": 256})
    assert (response.status_code, response.json()["code"]) == (409, "vm-runs")
    ready.refresh_from_db()
    assert ready.name == "hello"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "Not A Label"}, 422, "name-rule"),
        ({"name": "aebagbafaydqq"}, 422, "name-is-id"),
        ({"name": "x" * 64}, 422, "validation"),
        ({"name": "taken"}, 409, "name-taken"),
        ({"vcpu_count": 1000}, 422, "too-many-cpus"),
        ({"vcpu_count": 0}, 422, "validation"),
        ({"mem_size_mib": 60_000_000}, 422, "memory-size"),
        ({"mem_size_mib": 10**20}, 422, "validation"),
    ],
)
def test_bad_input(body, status, code, world, operator):
    operator.send("POST", "/vms", {"image": "alpine-3-23", "name": "taken"})
    for path, base in (("/vms", {"image": "alpine-3-23"}), ("/vms/hello", {})):
        method = "PATCH" if path.endswith("hello") else "POST"
        response = operator.send(method, path, base | body)
        assert (response.status_code, response.json()["code"]) == (status, code)


def test_more_than_the_host_has_names_what_it_has(world, operator):
    body = {"image": "alpine-3-23", "mem_size_mib": 60_000_000}
    problem = operator.send("POST", "/vms", body).json()
    assert problem["host"]["memory_mib"] > 0
    assert str(problem["host"]["memory_mib"]) in problem["detail"]


def test_creating_a_vm_around_a_drive_by_id(world, operator):
    body = {"drive": world.spare.ref, "name": "fresh"}
    assert operator.send("POST", "/vms", body).status_code == 202
    assert world.spare.attachment.vm.name == "fresh"


def test_deleting_a_vm_that_runs_needs_force(ready, operator):
    response = operator.send("DELETE", "/vms/hello")
    assert (response.status_code, response.json()["code"]) == (409, "vm-runs")
    assert operator.send("DELETE", "/vms/hello?force=1&keep_drives=1").status_code == 202
    params = Operation.objects.get(kind="vm.delete").params
    assert params["keep_drives"] is True


def test_starting_what_runs_is_a_conflict(ready, operator):
    response = operator.send("POST", "/vms/hello/start")
    assert (response.status_code, response.json()["code"]) == (409, "vm-runs")
    assert operator.send("POST", "/vms/hello/restart").status_code == 202


def test_stopping_what_does_not_run_is_a_conflict(world, operator):
    response = operator.send("POST", "/vms/hello/stop")
    assert (response.status_code, response.json()["code"]) == (409, "vm-not-running")


def test_from_rootfs_of_what_is_not_there_says_what_is(world, operator):
    response = operator.send("POST", "/vms/from-rootfs", {"distro": "plan9", "version": "4"})
    assert (response.status_code, response.json()["code"]) == (404, "rootfs-not-found")
    assert isinstance(response.json()["available"], list)


OFFER = {"distro": "alpine", "version": "3.23", "arch": "x86_64", "provider": "embedded"}
OFFER |= {"filename": "x", "format": "qcow2"}


@pytest.fixture
def offers(monkeypatch):
    """Providers that deliver Alpine 3.23, which is here, and 3.24, which is not."""
    found = [
        RootfsOffer(**OFFER, size_bytes=7),
        RootfsOffer(**OFFER | {"version": "3.24"}, size_bytes=8),
    ]
    monkeypatch.setattr("images.providers.embedded.EmbeddedProvider.offers", lambda self: found)
    return found


def test_from_rootfs_opens_the_whole_chain(world, operator, offers):
    body = {"distro": "alpine", "version": "3.24", "name": "fresh"}
    response = operator.send("POST", "/vms/from-rootfs", body)
    assert response.status_code == 202
    names = [step["name"] for step in response.json()["steps"]]
    assert names == ["rootfs", "template", "build", "image", "drive", "vm", "start", "agent"]
    assert response.json()["subject"] == {"kind": "vm", "id": None, "name": "fresh"}


def test_rootfs_available_and_installed(world, operator, offers):
    page = operator.send("GET", "/rootfs/available").json()
    assert page["next_cursor"] is None
    found = [o for o in page["items"] if o["provider"] == "embedded"]
    assert [(o["version"], o["installed"]) for o in found] == [("3.23", True), ("3.24", False)]
    shown = by_both(operator, "rootfs", world.rootfs)
    assert (shown["distro"], shown["version"]) == ("alpine", "3.23")
    body = {"distro": "alpine", "version": "3.24"}
    assert operator.send("POST", "/rootfs", body).json()["kind"] == "rootfs.download"


def test_a_drive(world, operator):
    shown = by_both(operator, "drives", world.drive)
    assert shown["vm"] == {
        "id": world.vm.ref,
        "name": "hello",
        "is_root": True,
        "read_only": False,
    }
    assert shown["image"]["name"] == "alpine-3-23"
    assert by_both(operator, "drives", world.spare)["vm"] is None


def test_a_drive_is_attached_as_root_unless_told_otherwise(world, operator):
    assert operator.send("POST", "/drives/hello/detach").json()["vm"] is None
    shown = operator.send("POST", "/drives/spare/attach", {"vm": world.vm.ref})
    assert shown.json()["vm"]["is_root"] is True
    second = operator.send("POST", "/drives/hello/attach", {"vm": "hello"})
    assert (second.status_code, second.json()["code"]) == (409, "second-root-drive")
    body = {"vm": "hello", "is_root": False, "read_only": True}
    shown = operator.send("POST", f"/drives/{world.drive.ref}/attach", body).json()
    assert (shown["vm"]["is_root"], shown["vm"]["read_only"]) == (False, True)
    assert operator.send("POST", "/drives/spare/attach", {"vm": "nope"}).status_code == 404


def test_drives_are_made_and_deleted(world, operator):
    made = operator.send("POST", "/drives", {"image": world.image.ref, "size_mib": 9000})
    assert made.status_code == 202
    drive = Drive.objects.get(name=made.json()["subject"]["name"])
    assert drive.size_bytes == 9000 * 1024**2
    small = operator.send("POST", "/drives", {"image": "alpine-3-23", "size_mib": 1})
    assert (small.status_code, small.json()["code"]) == (422, "drive-too-small")
    busy = operator.send("DELETE", "/drives/hello")
    assert (busy.status_code, busy.json()["code"]) == (409, "drive-attached")
    assert operator.send("DELETE", f"/drives/{world.spare.ref}").status_code == 202


def test_an_image(world, operator):
    shown = by_both(operator, "images", world.image)
    assert shown["build_id"] == world.build.ref
    assert shown["rootfs"]["id"] == world.rootfs.ref
    busy = operator.send("DELETE", "/images/alpine-3-23")
    assert busy.status_code == 409
    Attachment.objects.all().delete()
    Snapshot.objects.all().delete()
    Drive.objects.all().delete()
    gone = operator.send("DELETE", "/images/alpine-3-23")
    assert gone.status_code == 202


def test_an_image_that_nothing_built(world, reader):
    Build.objects.all().delete()
    assert Image.objects.count() == 1
    assert reader.send("GET", "/images/alpine-3-23").json()["build_id"] is None


def test_a_kernel(world, reader):
    assert by_both(reader, "kernels", world.kernel)["is_default"] is True


def test_a_template(world, operator):
    shown = by_both(operator, "templates", world.template)
    assert shown["current"]["number"] == 1
    assert shown["current"]["rootfs"]["version"] == "3.23"
    busy = operator.send("DELETE", "/templates/alpine-3-23")
    assert (busy.status_code, busy.json()["code"]) == (409, "template-used")
    Build.objects.all().delete()
    assert operator.send("DELETE", "/templates/alpine-3-23").status_code == 204
    assert not Template.objects.exists()


def test_templates_are_made_of_what_is_here(world, operator, offers):
    body = {"distro": "alpine", "version": "3.23"}
    made = operator.send("POST", "/templates", body)
    assert made.status_code == 201
    assert made.json()["current"]["rootfs"]["id"] == world.rootfs.ref
    assert operator.send("POST", "/templates", {"rootfs": world.rootfs.ref}).status_code == 201
    missing = operator.send("POST", "/templates", body | {"version": "3.24"})
    assert (missing.status_code, missing.json()["code"]) == (404, "rootfs-not-installed")
    assert missing.json()["hint"] == "Fetch it: nexusctl rootfs download alpine 3.24"
    for unclear in ({}, body | {"rootfs": world.rootfs.ref}, {"distro": "alpine"}):
        response = operator.send("POST", "/templates", unclear)
        assert (response.status_code, response.json()["code"]) == (422, "which-rootfs")


def test_a_build(world, reader):
    shown = by_both(reader, "builds", world.build)
    assert shown["template"] == {"id": world.template.ref, "name": "alpine-3-23"}
    assert shown["template_version"] == 1
    assert shown["image"]["id"] == world.image.ref
    assert shown["error"] is None


def test_builds_are_triggered_with_and_without_a_body(world, operator, monkeypatch):
    monkeypatch.setattr("builds.services.builds.agent_digest", lambda arch: "3" * 64)
    plain = operator.generic("POST", "/templates/alpine-3-23/builds")
    assert plain.status_code == 202
    named = operator.send("POST", f"/templates/{world.template.ref}/builds", {"image_name": "mine"})
    assert named.json()["subject"]["kind"] == "build"
    assert Build.objects.filter(image_name="mine").exists()


def test_the_log_of_a_build(world, reader):
    path = log_path(world.build)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("one\ntwo\n")
    page = reader.send("GET", f"/builds/{world.build.ref}/log?offset=4").json()
    assert page == {"text": "two\n", "offset": 4, "next_offset": 8, "size": 8, "ended": True}


def test_status(ready, reader):
    shown = reader.send("GET", "/status").json()
    assert shown["version"]
    assert shown["vms"]["ready"] == 1
    assert set(shown["vms"]) == set(State.values)
    assert shown["operations"] == {"queued": 0, "running": 0}
    assert shown["host"]["cpus"] >= 1
    assert shown["host"]["memory_assigned_mib"] == 128
    assert shown["last_event"] == events.last_seq()


def test_the_log_of_a_build_is_waited_for_until_its_end(world, reader, monkeypatch):
    """A build that ends while somebody waits for more of its log ends the waiting."""
    Build.objects.update(state=Build.State.RUNNING)

    def end(_: float) -> None:
        Build.objects.update(state=Build.State.FAILED)

    monkeypatch.setattr("nexus_site.core.http.time.sleep", end)
    page = reader.send("GET", f"/builds/{world.build.ref}/log?wait=60").json()
    assert (page["text"], page["ended"]) == ("", True)
