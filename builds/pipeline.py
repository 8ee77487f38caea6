"""From a root file system to an image: the steps of a build.

Each step works in the build's own directory and may be repeated; the log there says what
was done, for people. Nothing needs root and nothing is mounted.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from builds.models import Build
from builds.packing import pack_ext4
from guest_agent.binary import agent_path, agent_version
from guest_agent.init_integration import integrate
from images import services as image_services
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.models import Image
from images.trees import Item, Tree
from nexus_site.core import events
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step

#: UUIDs of file systems are derived from this and the image's ID, so they can be made again.
NAMESPACE = uuid.UUID("6e657875-7300-4d69-8372-6f564d730001")
#: Left out of images: Nexus brings kernel and initrd, and these belong to one machine alone.
LEFT_OUT = (
    "boot",
    "etc/hostname",
    "etc/machine-id",
    "lost+found",
    "var/cache/apk",
    # The agent of the product that the embedded Alpine was made for; ours takes its place.
    "etc/init.d/quicksand-guest-agent",
    "etc/runlevels/boot/quicksand-guest-agent",
    "usr/local/bin/quicksand-guest-agent",
)
AGENT = "usr/bin/nexus-agent"
METADATA = "etc/nexus/image.yaml"


def plan(operation: Operation) -> Plan:
    return [
        Step("fetch", "Fetch the root file system", fetch),
        Step("unpack", "Unpack it", unpack),
        Step("agent", "Embed the agent", embed_agent),
        Step("metadata", "Write the image's metadata", write_metadata),
        Step("pack", "Pack and check the file system", pack),
        Step("publish", "Publish the image", publish, undo=unpublish),
    ]


def log_path(build: Build) -> Path:
    """Where the build's log is kept, for as long as the build's row."""
    return Path(settings.NEXUS.data_dir) / "builds" / f"{build.ref}.log"


def workspace(build: Build) -> Path:
    """The build's own directory, gone when it ends."""
    return Path(settings.NEXUS.data_dir) / "builds" / build.ref


def remove_workspace(build: Build) -> None:
    shutil.rmtree(workspace(build), ignore_errors=True)


def fetch(run: Run) -> str:
    build = _build(run)
    rootfs = build.template_version.rootfs
    image_services.ensure_rootfs(rootfs.distro, rootfs.version, run)
    _log(build, f"rootfs {rootfs} ({rootfs.format}), sha256 {rootfs.sha256}")
    return str(rootfs)


def unpack(run: Run) -> str:
    """The archive's entries into a tree, without those that no image keeps."""
    build = _build(run)
    remove_workspace(build)
    tree = Tree.create(workspace(build) / "tree")
    rootfs = build.template_version.rootfs
    with open_disk(image_services.rootfs_path(rootfs)) as disk:
        tree.fill(_cancellable(Ext4(disk).items(), run))
    for path in LEFT_OUT:
        tree.remove(path)
    tree.save()
    _log(build, f"unpacked {len(tree)} entries")
    return f"{len(tree)} entries"


def embed_agent(run: Run) -> str:
    """The agent, and what makes the distribution's init start it."""
    build = _build(run)
    tree = _tree(build)
    binary = agent_path(image_services.host_arch())
    tree.add_file(AGENT, binary, mode=0o755)
    for path in (AGENT, *integrate(tree)):
        _log(build, f"added /{path}")
    tree.save()
    return f"agent {agent_version()}"


def write_metadata(run: Run) -> str:
    """``/etc/nexus/image.yaml``: which image this is, and which build made it."""
    build = _build(run)
    image_id = run.made.get("image") or str(NexusID.random())
    built_at = run.made.get("built_at") or datetime.now(UTC).replace(microsecond=0).isoformat()
    run.keep(image=image_id, built_at=built_at)
    tree = _tree(build)
    lines = {
        "image_id": image_id,
        "image_name": build.image_name,
        "build_id": build.ref,
        "built_at": built_at,
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    tree.add_file(METADATA, text.encode(), mode=0o644)
    tree.save()
    _log(build, text.rstrip())
    return build.image_name


def pack(run: Run) -> str:
    build = _build(run)
    size = settings.NEXUS.image_size_mib
    identity = uuid.uuid5(NAMESPACE, run.made["image"])
    pack_ext4(
        _tree(build),
        workspace(build) / "image.ext4",
        size,
        fs_uuid=identity,
        hash_seed=uuid.uuid5(identity, "hash"),
        timestamp=int(datetime.fromisoformat(run.made["built_at"]).timestamp()),
        label="nexus-root",
    )
    used = (workspace(build) / "image.ext4").stat().st_blocks * 512
    _log(build, f"packed an ext4 file system of {size} MiB, {used / 1e6:.0f} MB on disk; clean")
    return f"{used / 1e6:.0f} MB on disk"


def publish(run: Run) -> str:
    """Hand the file to the storage and make the image's row; the build has succeeded."""
    build = _build(run)
    tree = _tree(build)
    rootfs = build.template_version.rootfs
    image = image_services.publish_image(
        NexusID.parse(run.made["image"]),
        build.image_name,
        source=workspace(build) / "image.ext4",
        rootfs=rootfs,
        os_name=_os_name(tree, str(rootfs)),
    )
    with transaction.atomic():
        Build.objects.filter(pk=build.pk).update(
            image=image, state=Build.State.SUCCEEDED, ended_at=timezone.now()
        )
        events.append("build.ended", build, state=Build.State.SUCCEEDED, image=image.ref)
    run.keep(build=build.ref)
    _log(build, f"image {image.name} ({image.ref}), digest {image.digest}")
    remove_workspace(build)
    return image.name


def unpublish(run: Run) -> None:
    image = Image.objects.filter(pk=NexusID.parse(run.made["image"])).first()
    if image is not None:
        image_services.discard_image(image)


def failed(operation: Operation, error: NexusError) -> None:
    """The build's row and log say why; its files are gone."""
    build = Build.objects.filter(pk=NexusID.parse(operation.params["build"])).first()
    if build is None:
        return
    with transaction.atomic():
        Build.objects.filter(pk=build.pk).update(
            state=Build.State.FAILED, ended_at=timezone.now(), error=error.record()
        )
        events.append("build.ended", build, state=Build.State.FAILED, reason=error.text)
    remove_workspace(build)
    _log(build, f"FAILED: {error.text}\n{error.detail}".rstrip())


def _cancellable(items: Iterable[Item], run: Run) -> Iterator[Item]:
    """``items``, with a look now and then at whether the build is still wanted."""
    for count, item in enumerate(items):
        if count % 200 == 0:
            run.progress(note=f"{count} entries")
        yield item


def _build(run: Run) -> Build:
    rows = Build.objects.select_related("template_version__rootfs", "template_version__template")
    build = rows.filter(pk=NexusID.parse(run.params["build"])).first()
    if build is None:
        raise Conflict("The build has been deleted meanwhile.", code="build-gone")
    return build


def _tree(build: Build) -> Tree:
    return Tree.load(workspace(build) / "tree")


def _log(build: Build, text: str) -> None:
    """Add lines to the build's log; a full disk must not hide the failure it causes."""
    path = log_path(build)
    stamp = datetime.now(UTC).strftime("%H:%M:%S")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.writelines(f"{stamp} {line}\n" for line in text.splitlines())
    except OSError:
        pass


def _os_name(tree: Tree, default: str) -> str:
    """``PRETTY_NAME`` of the tree's os-release."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        if path not in tree:
            continue
        for line in tree.read(path)[:65536].decode("utf-8", "replace").splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip("\"' ")[:100]
    return default
