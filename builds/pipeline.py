"""From a root file system to an image: the steps of a build.

Each step works in the build's own directory and may be repeated; the log says what was done,
for people. Nothing needs root and nothing is mounted. A build whose image is there already
skips to its end; one that verifies an image makes it again and compares.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from builds import log
from builds.cleaning import LEFT_OUT, clean, settle_times
from builds.comparing import differences
from builds.customizing import Workbench, customize
from builds.embedding import AGENT, METADATA, add_environment, add_overlays, choose_init
from builds.inputs import Inputs
from builds.models import Build
from builds.packing import pack_ext4
from builds.workspace import (
    build_of,
    end_machine,
    inputs_of,
    load_tree,
    packed,
    recipe_of,
    remove_workspace,
    tree_dir,
    workspace,
)
from guest_agent.binary import agent_digest, agent_path, agent_version
from guest_agent.init_integration import integrate
from images import services as image_services
from images.digest import content_digest
from images.files import sha256_of
from images.formats.e2fsprogs import check as check_file_system
from images.formats.rootfs import read_rootfs
from images.inspection import open_image
from images.models import Image
from images.trees import Tree
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.steps import Do, Plan, Run, Step
from nexus_site.core.text import counted

#: Dates from here on were given by the build itself: the VM's clock is set after this is read.
_CLOCK_SLACK = 5  # seconds
MAX_AGENT = 16 << 20  # bytes


def plan(operation: Operation) -> Plan:
    last = (
        Step("compare", "Compare with the image", compare)
        if operation.params.get("verify")
        else Step("publish", "Publish the image", publish, undo=unpublish)
    )
    return [
        Step("fetch", "Fetch the root file system", fetch, done=unchanged),
        Step("unpack", "Unpack it", unpack, done=unchanged),
        Step("overlays", "Add the overlays", overlays, done=_unless(_has_overlays)),
        Step(
            "customize",
            "Install packages and run commands",
            run_machine,
            done=_unless(_needs_machine),
            undo=stop_machine,
        ),
        Step("agent", "Embed the agent", embed_agent, done=unchanged),
        Step("init", "Have the init start it", integrate_init, done=unchanged),
        Step("metadata", "Write the image's metadata", write_metadata, done=unchanged),
        Step("pack", "Pack the file system", pack, done=unchanged),
        Step("check", "Check the file system", check, done=unchanged),
        last,
    ]


# The steps


def unchanged(run: Run) -> str | None:
    """A note where there is nothing to do: the image of these inputs is there."""
    build = build_of(run)
    image = kept_image(inputs_of(build))
    return f"unchanged: {image.name}" if image and build.verifies_id is None else None


def fetch(run: Run) -> str:
    build = build_of(run)
    rootfs = build.template_version.rootfs
    kept = image_services.ensure_rootfs(rootfs.distro, rootfs.version, run, rootfs.provider)
    if kept.pk != rootfs.pk or sha256_of(image_services.rootfs_path(rootfs)) != rootfs.sha256:
        raise Broken(
            f"The file of {rootfs} is not what was fetched once.",
            hint=f"Delete and fetch it again: nexusctl rootfs delete {rootfs.ref}",
            code="rootfs-damaged",
        )
    log.write(build, f"rootfs {rootfs} ({rootfs.format}), sha256 {rootfs.sha256}")
    log.write(build, f"inputs {inputs_of(build).digest}")
    return str(rootfs)


def unpack(run: Run) -> str:
    """The archive's entries into a tree, without those that no image keeps."""
    build = build_of(run)
    remove_workspace(build)
    rootfs = build.template_version.rootfs
    tree = Tree.create(tree_dir(build))
    content = read_rootfs(
        image_services.rootfs_path(rootfs),
        rootfs.format,
        tree,
        arch=rootfs.arch,
        watch=lambda count: run.progress(note=f"{count} entries"),
        leave_out=LEFT_OUT,
    )
    image_services.keep_config(rootfs, content.config)
    run.keep(config=content.config)
    log.write(build, f"unpacked {len(tree)} entries")
    return f"{len(tree)} entries"


def overlays(run: Run) -> str:
    build = build_of(run)
    tree = load_tree(build)
    for path in add_overlays(tree, recipe_of(build)):
        log.write(build, f"added /{path}")
    tree.save()
    return counted(len(recipe_of(build).overlays), "file")


def run_machine(run: Run) -> str:
    """Packages and commands, in a VM made for this build."""
    build = build_of(run)
    recipe = recipe_of(build)
    end_machine(build)
    if "started" not in run.made:
        run.keep(started=int(time.time()) - _CLOCK_SLACK)
    bench = Workbench(
        workspace(build),
        log=lambda text: log.write(build, text),
        output=lambda: log.Output(build),
        check=run.check,
        note=lambda text: run.progress(note=text),
    )
    done = customize(load_tree(build), recipe, inputs_of(build).size_mib, bench)
    shutil.rmtree(tree_dir(build))
    done.directory.rename(tree_dir(build))
    end_machine(build)
    packages = counted(len(recipe.packages), "package")
    return f"{packages}, {counted(len(recipe.commands), 'command')}"


def stop_machine(run: Run) -> None:
    end_machine(build_of(run))


def embed_agent(run: Run) -> str:
    build = build_of(run)
    tree = load_tree(build)
    tree.add_file(AGENT, _agent_of(build), mode=0o755)
    tree.save()
    log.write(build, f"added /{AGENT} {agent_version()}, sha256 {inputs_of(build).agent_digest}")
    return f"agent {agent_version()}"


def integrate_init(run: Run) -> str:
    """What makes the distribution's init start the agent, as the recipe wants it."""
    build = build_of(run)
    tree = load_tree(build)
    init = choose_init(tree, recipe_of(build).init)
    for path in integrate(tree) if init != "none" else ():
        log.write(build, f"added /{path}")
    tree.save()
    run.keep(init=init)
    return init


def write_metadata(run: Run) -> str:
    """``/etc/nexus/image.yaml``: which image this is, and what made it; always the same."""
    build = build_of(run)
    inputs = inputs_of(build)
    tree = load_tree(build)
    clean(tree)
    add_environment(tree, run.made["config"], recipe_of(build))
    newest = settle_times(tree, run.made.get("started", int(time.time())))
    built_at = datetime.fromtimestamp(newest, UTC).isoformat()
    facts = {
        "image_id": inputs.image_id,
        "image_name": inputs.name,
        "build_id": inputs.build_key,
        "built_at": built_at,
        "inputs": inputs.digest,
    }
    text = "".join(f"{key}: {value}\n" for key, value in facts.items())
    tree.add_file(METADATA, text.encode(), mode=0o644, mtime=newest)
    tree.save()
    run.keep(newest=newest)
    log.write(build, text.rstrip())
    return inputs.name


def pack(run: Run) -> str:
    build = build_of(run)
    inputs = inputs_of(build)
    run.progress(note="writing")
    pack_ext4(
        load_tree(build),
        packed(build),
        inputs.size_mib,
        fs_uuid=inputs.fs_uuid,
        hash_seed=inputs.hash_seed,
        timestamp=run.made["newest"],
        label="nexus-root",
    )
    used = packed(build).stat().st_blocks * 512
    log.write(build, f"packed an ext4 file system of {inputs.size_mib} MiB, {used / 1e6:.0f} MB")
    return f"{used / 1e6:.0f} MB on disk"


def check(run: Run) -> str:
    """Does the file system hold together, and is the agent in it as it should be?"""
    build = build_of(run)
    check_file_system(packed(build))
    with open_image(packed(build)) as view:
        found = hashlib.sha256(view.read(AGENT, MAX_AGENT)).hexdigest()
    if found != inputs_of(build).agent_digest:
        raise Broken(
            "The agent in the packed file system is not the one that was put in.",
            hint="Build again; if it happens again, this machine's disk or memory is failing.",
            code="packing-failed",
        )
    log.write(build, "checked: the file system is clean, the agent is in it")
    return "clean"


def publish(run: Run) -> str:
    """Make the file an image, unless the image of these inputs is there already."""
    build = build_of(run)
    inputs = inputs_of(build)
    image = kept_image(inputs)
    if image is None:
        name, provenance = build.image_name, _provenance(build, run.made["init"])
        image = image_services.publish_image(inputs.image_id, name, packed(build), provenance)
        log.write(build, f"image {image.name} ({image.ref}), digest {image.digest}")
    else:
        log.write(build, f"unchanged: image {image.name} ({image.ref}) has the same inputs")
    _succeed(build, image)
    run.keep(build=build.ref, image=image.ref)
    return image.name


def _provenance(build: Build, init: str) -> image_services.Provenance:
    """What is known of the packed image; read from it, or from where it has been moved to."""
    inputs, rootfs = inputs_of(build), build.template_version.rootfs
    made = packed(build)
    path = made if made.exists() else image_services.path_of(inputs.image_id)
    with open_image(path) as view:
        return image_services.Provenance(
            rootfs=rootfs,
            inputs=inputs.document(),
            os_name=view.os_release().get("PRETTY_NAME", str(rootfs))[:100],
            packages=view.packages(),
            init=init,
            agent_version=agent_version(),
            agent_digest=inputs.agent_digest,
        )


def unpublish(run: Run) -> None:
    """Take back an image that this build has made, and no other has."""
    build = build_of(run)
    image = Image.objects.filter(pk=inputs_of(build).image_id).first()
    if image is not None and build.image_id == image.pk and image.builds.count() == 1:
        image_services.discard_image(image)


def compare(run: Run) -> str:
    """Is what was made now, byte by byte, the image that is to be verified?"""
    build = build_of(run)
    image = build.verifies
    if image is None:
        raise Conflict("The image has been deleted meanwhile.", code="image-gone")
    kept, made = image_services.require_file(image), packed(build)
    found = content_digest(made)
    log.write(build, f"digest of the image {image.digest}\ndigest of this build {found}")
    if found != image.digest:
        listed = differences(kept, made)
        log.write(build, "\n".join(listed))
        raise Conflict(
            f"“{image.name}” cannot be made again: this build gave other bytes.",
            detail="\n".join(listed),
            hint="Packages and commands may bring in what has changed since; the log lists all.",
            code="not-reproducible",
        )
    _succeed(build, image)
    run.keep(build=build.ref, image=image.ref)
    return "identical"


# What comes of them


def kept_image(inputs: Inputs) -> Image | None:
    """The image that was made from ``inputs``, where it and its file are there."""
    image = Image.objects.filter(pk=inputs.image_id).first()
    return image if image and image_services.has_file(image) else None


def failed(operation: Operation, error: NexusError) -> None:
    """The build's row and log say why; its files are gone."""
    build = Build.objects.filter(pk=NexusID.parse(operation.params["build"])).first()
    if build is None:
        return
    cancelled = error.code == "cancelled"
    state = Build.State.CANCELLED if cancelled else Build.State.FAILED
    with transaction.atomic():
        Build.objects.filter(pk=build.pk).update(
            state=state, ended_at=timezone.now(), error=error.record()
        )
        events.append("build.ended", build, state=state, reason=error.text)
    remove_workspace(build)
    log.write(build, f"{state.upper()}: {error.text}\n{error.detail}".rstrip())


def _succeed(build: Build, image: Image) -> None:
    with transaction.atomic():
        Build.objects.filter(pk=build.pk).update(
            image=image, state=Build.State.SUCCEEDED, ended_at=timezone.now()
        )
        events.append("build.ended", build, state=Build.State.SUCCEEDED, image=image.ref)
    remove_workspace(build)


def _unless(wanted: Callable[[Build], bool]) -> Do:
    """A step that is skipped when the image is there, or the recipe has no use for it."""

    def done(run: Run) -> str | None:
        note = unchanged(run)
        return note if note or wanted(build_of(run)) else "the recipe has none"

    return done


def _has_overlays(build: Build) -> bool:
    return bool(recipe_of(build).overlays)


def _needs_machine(build: Build) -> bool:
    return recipe_of(build).needs_machine


def _agent_of(build: Build) -> Path | bytes:
    """The agent that belongs to the inputs: this Nexus's, or that of the image to be verified."""
    wanted = inputs_of(build).agent_digest
    arch = build.template_version.rootfs.arch
    if agent_digest(arch) == wanted:
        return agent_path(arch)
    if build.verifies is not None:
        with open_image(image_services.require_file(build.verifies)) as view:
            data = view.read(AGENT, MAX_AGENT)
        if hashlib.sha256(data).hexdigest() == wanted:
            return data
    raise Conflict(
        "Nexus has another agent now than when this build was asked for.",
        hint="Build again.",
        code="agent-changed",
    )
