"""A build makes a bootable image with the agent inside, or fails and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builds import services
from builds.embedding import AGENT, METADATA
from builds.inputs import Inputs
from builds.models import Build, Template, TemplateVersion
from builds.workspace import workspace
from guest_agent.binary import agent_path, agent_version
from images import services as image_services
from images.digest import content_digest
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.inspection import open_image
from images.models import Image
from images.trees import Tree
from nexus_site.core import operations
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]


@pytest.fixture
def template() -> Template:
    operations.execute(image_services.download_rootfs("alpine", "3.23").id)
    rootfs = image_services.installed_rootfs("alpine", "3.23")
    assert rootfs is not None
    return services.create_template(name="base", rootfs=rootfs)


def run(operation: Operation) -> Operation:
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def test_an_image_has_the_agent_its_service_and_its_metadata(
    template: Template, tmp_path: Path
) -> None:
    operation = run(services.trigger_build(template, image_name="first"))
    assert operation.state == "succeeded", operation.error
    image = Image.objects.get(name="first")
    assert (image.os_name, image.agent_version) == ("Alpine Linux v3.23", agent_version())
    assert image.digest == content_digest(image_services.require_file(image))

    tree = Tree.create(tmp_path / "tree")
    with open_disk(image_services.image_path(image)) as disk:
        tree.fill(Ext4(disk).items())
    agent = tree.entry(AGENT)
    assert (agent.mode, agent.uid, agent.gid) == (0o755, 0, 0)
    assert tree.read(AGENT) == agent_path().read_bytes()
    assert tree.entry("etc/runlevels/default/nexus-agent").target == "/etc/init.d/nexus-agent"
    lines = dict(line.split(": ", 1) for line in tree.read(METADATA).decode().splitlines())
    build = Build.objects.get()
    assert lines["image_id"] == image.ref == operation.result["image"]
    assert lines["image_name"] == "first"
    assert services.find_build(Build.objects.all(), lines["build_id"]) == build
    assert lines["built_at"].endswith("+00:00")
    assert lines["inputs"] == Inputs.from_document(image.inputs).digest
    assert {"busybox", "apk-tools"} <= {name for name, _ in image.packages}
    assert not [path for path in tree.paths() if path.startswith("boot/")]
    assert not workspace(build).exists()


def test_the_log_tells_what_was_done_and_reads_in_pieces(template: Template) -> None:
    run(services.trigger_build(template))
    build = Build.objects.select_related("image").get()
    page = services.read_log(build)
    assert page.ended
    assert f"sha256 {template.current.rootfs.sha256}" in page.text
    assert "added /usr/bin/nexus-agent" in page.text
    rest = services.read_log(build, offset=10)
    assert rest.text == page.text[10:]
    assert services.read_log(build, offset=page.next_offset).text == ""


def test_an_unchanged_template_is_built_once(template: Template) -> None:
    first = run(services.trigger_build(template))
    again = run(services.trigger_build(template))
    assert again.result["image"] == first.result["image"]
    assert {step["state"] for step in again.steps[:-1]} == {"skipped"}
    assert Image.objects.count() == 1
    assert Image.objects.get().builds.count() == 2


def test_the_image_of_a_template_is_the_one_with_this_agent(
    template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert services.current_image(template) is None
    run(services.trigger_build(template))
    assert services.current_image(template) == Image.objects.get()
    monkeypatch.setattr("builds.services.builds.agent_digest", lambda arch: "0" * 64)
    assert services.current_image(template) is None


def test_an_image_that_lost_its_file_is_built_again_and_is_the_same(template: Template) -> None:
    run(services.trigger_build(template))
    image = Image.objects.get()
    image_services.image_path(image).unlink()
    assert services.current_image(template) is None
    assert run(services.trigger_build(template)).state == "succeeded"
    assert content_digest(image_services.require_file(image)) == image.digest


def test_rebuilding_gives_another_image_with_the_same_files(template: Template) -> None:
    run(services.trigger_build(template))
    run(services.trigger_build(template, rebuild=True))
    older, newer = Image.objects.order_by("created_at")
    assert older.pk != newer.pk
    assert newer.inputs == older.inputs | {"edition": 2}


def test_an_image_is_verified_by_making_it_again(template: Template) -> None:
    run(services.trigger_build(template))
    image = Image.objects.get()
    operation = run(services.verify_image(image))
    assert operation.state == "succeeded", operation.error
    assert operation.steps[-1]["note"] == "identical"
    assert Image.objects.count() == 1
    assert image.verifications.get().state == Build.State.SUCCEEDED


def test_an_image_whose_file_was_changed_is_found_out_and_the_file_is_named(
    template: Template,
) -> None:
    run(services.trigger_build(template))
    image = Image.objects.get()
    path = image_services.image_path(image)
    path.chmod(0o600)
    subprocess.run(
        ["debugfs", "-w", "-R", "sif /etc/passwd uid 1000", path], check=True, capture_output=True
    )
    Image.objects.update(digest=content_digest(path))
    image.refresh_from_db()
    operation = run(services.verify_image(image))
    assert (operation.state, operation.error["code"]) == ("failed", "not-reproducible")
    assert "/etc/passwd: uid 1000 → 0" in operation.error["detail"]
    assert "/etc/passwd: uid 1000 → 0" in services.read_log(Build.objects.get(verifies=image)).text


def test_what_an_image_was_made_from_is_needed_to_verify_it(template: Template) -> None:
    run(services.trigger_build(template))
    image = Image.objects.get()
    Build.objects.all().delete()
    image = Image.objects.get(pk=image.pk)
    with pytest.raises(Conflict, match="record of its build is gone"):
        services.verify_image(image)


def test_overlays_and_variables_are_in_the_image(template: Template, tmp_path: Path) -> None:
    recipe = {
        "overlays": [{"path": "/etc/motd", "content": "hi\n", "mode": "0600", "owner": "7:8"}],
        "env": {"GREETING": "hello"},
        "init": "none",
    }
    TemplateVersion.objects.create(
        template=template, number=2, rootfs=template.current.rootfs, recipe=recipe
    )
    operation = run(services.trigger_build(template))
    assert operation.state == "succeeded", operation.error
    image = Image.objects.get()
    assert image.init == "none"
    with open_image(image_services.require_file(image)) as view:
        assert view.read("/etc/motd", 100) == b"hi\n"
        assert (view.entry("/etc/motd").mode, view.entry("/etc/motd").uid) == (0o600, 7)
        assert b"GREETING=hello" in view.read("/etc/profile.d/nexus-image.sh", 1000)
        assert "nexus-agent" not in {entry.name for entry in view.list("/etc/init.d")}


def test_a_build_keeps_the_version_it_was_asked_for(template: Template) -> None:
    operation = services.trigger_build(template)
    TemplateVersion.objects.create(
        template=template, number=2, rootfs=template.current.rootfs, recipe={"init": "none"}
    )
    run(operation)
    assert Build.objects.get().template_version.number == 1
    assert Image.objects.get().init == "openrc"


def test_an_image_too_small_for_its_content_fails_with_what_to_do(template: Template) -> None:
    operation = services.trigger_build(template)
    build = Build.objects.get()
    Build.objects.update(inputs=build.inputs | {"size_mib": 32})
    operation = run(operation)
    assert (operation.state, operation.error["code"]) == ("failed", "image-too-small")
    assert not Image.objects.exists()


def test_image_names_are_checked_and_free(template: Template) -> None:
    with pytest.raises(Invalid):
        services.trigger_build(template, image_name="Not A Name")
    services.trigger_build(template, image_name="mine")
    services.trigger_build(template, image_name="mine")  # the very same image: it will be found
    TemplateVersion.objects.create(
        template=template, number=2, rootfs=template.current.rootfs, recipe={"init": "none"}
    )
    template = Template.objects.get()
    with pytest.raises(Conflict, match="image “mine” already"):
        services.trigger_build(template, image_name="mine")
    services.trigger_build(template)
    assert Build.objects.filter(image_name="base").count() == 1


def test_a_damaged_archive_fails_the_build_with_its_reason(template: Template) -> None:
    path = image_services.rootfs_path(template.current.rootfs)
    good = path.read_bytes()
    path.chmod(0o600)
    try:
        path.write_bytes(good[:100_000])
        operation = run(services.trigger_build(template))
    finally:
        path.write_bytes(good)
    assert operation.state == "failed"
    build = Build.objects.get()
    assert build.state == Build.State.FAILED
    assert build.error["text"]
    assert "FAILED" in services.read_log(build).text
    assert not workspace(build).exists()
    assert not Image.objects.exists()


def test_a_cancelled_build_is_undone(template: Template) -> None:
    operation = services.trigger_build(template)
    operations.cancel(operation)
    assert run(operation).state == "cancelled"
    assert Build.objects.get().state == Build.State.CANCELLED


def test_a_worker_that_starts_removes_what_dead_builds_left(template: Template) -> None:
    services.trigger_build(template)
    running = Build.objects.get()
    dead = Build.objects.create(
        template_version=template.current, image_name="dead", agent_digest="0"
    )
    for build in (running, dead):
        workspace(build).mkdir(parents=True)
    services.sweep()
    assert workspace(running).exists()
    assert not workspace(dead).exists()


def test_an_image_in_use_cannot_be_deleted(template: Template) -> None:
    from tests.factories import make_drive

    run(services.trigger_build(template, image_name="used"))
    image = Image.objects.get()
    drive = make_drive(image=image)
    with pytest.raises(Conflict, match=f"used by drives: {drive.name}"):
        image_services.delete_image(image)
    drive.delete()
    run(image_services.delete_image(image))
    assert not image_services.image_path(image).exists()
    assert Build.objects.get().image is None


def test_a_full_disk_fails_the_build_leaves_nothing_and_the_next_works(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    assert unshare, "util-linux is part of every Linux"
    done = subprocess.run(
        [unshare, "--user", "--map-root-user", "--mount", sys.executable, "-W", "ignore",
         Path(__file__).with_name("full_disk.py"), tmp_path / "data"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["full"]["state"] == "failed"
    assert outcome["full"]["error"]["code"] == "disk-full"
    assert "disk is full" in outcome["full"]["error"]["text"]
    assert [path for path in outcome["full"]["left"] if not path.endswith(".log")] == []
    assert outcome["freed"]["state"] == "succeeded", outcome["freed"]["error"]


def test_ids_of_operations_lead_to_what_they_made(template: Template) -> None:
    operation = run(services.trigger_build(template))
    assert Image.objects.filter(pk=NexusID.parse(operation.result["image"])).exists()
    assert Build.objects.filter(pk=NexusID.parse(operation.result["build"])).exists()
