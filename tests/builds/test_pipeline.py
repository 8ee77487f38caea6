"""A build makes a bootable image with the agent inside, or fails and leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from builds import pipeline, services
from builds.models import Build, Template
from guest_agent.binary import agent_path, agent_version
from images import services as image_services
from images.digest import content_digest
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
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
    agent = tree.entry(pipeline.AGENT)
    assert (agent.mode, agent.uid, agent.gid) == (0o755, 0, 0)
    assert tree.read(pipeline.AGENT) == agent_path().read_bytes()
    assert tree.entry("etc/runlevels/default/nexus-agent").target == "/etc/init.d/nexus-agent"
    lines = dict(line.split(": ", 1) for line in tree.read(pipeline.METADATA).decode().splitlines())
    build = Build.objects.get()
    assert lines["image_id"] == image.ref == operation.result["image"]
    assert lines["image_name"] == "first"
    assert lines["build_id"] == build.ref
    assert lines["built_at"].endswith("+00:00")
    assert not [path for path in tree.paths() if path.startswith("boot/")]
    assert not pipeline.workspace(build).exists()


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


def test_the_image_of_a_template_is_the_one_with_this_agent(template: Template) -> None:
    assert services.current_image(template) is None
    run(services.trigger_build(template))
    image = services.current_image(template)
    assert image is not None
    Build.objects.update(agent_digest="an older agent")
    assert services.current_image(template) is None


def test_image_names_are_checked_and_free(template: Template) -> None:
    with pytest.raises(Invalid):
        services.trigger_build(template, image_name="Not A Name")
    services.trigger_build(template, image_name="mine")
    with pytest.raises(Conflict, match="image “mine” already"):
        services.trigger_build(template, image_name="mine")
    assert (
        services.trigger_build(template).subject_id != services.trigger_build(template).subject_id
    )
    names = list(Build.objects.values_list("image_name", flat=True))
    assert len(set(names)) == len(names)


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
    assert not pipeline.workspace(build).exists()
    assert not Image.objects.exists()


def test_a_cancelled_build_is_undone(template: Template) -> None:
    operation = services.trigger_build(template)
    operations.cancel(operation)
    assert run(operation).state == "cancelled"
    assert Build.objects.get().state == Build.State.FAILED


def test_a_worker_that_starts_removes_what_dead_builds_left(template: Template) -> None:
    services.trigger_build(template)
    running = Build.objects.get()
    dead = Build.objects.create(
        template_version=template.current, image_name="dead", agent_digest="0"
    )
    for build in (running, dead):
        pipeline.workspace(build).mkdir(parents=True)
    services.sweep()
    assert pipeline.workspace(running).exists()
    assert not pipeline.workspace(dead).exists()


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
