"""The chain in one operation, from wherever it starts to whatever is wanted.

    rootfs → template → build → image → drive → VM → ready

``vm.from-rootfs`` is all of it, ``drive.from-template`` a piece of it; the kind says which.
Each step finds what is there already, so the same request again is quick.
"""

from __future__ import annotations

from dataclasses import replace

from django.db import transaction

from builds import services as build_services
from builds.models import Template
from drives import services as drive_services
from drives.models import Drive
from images import services as image_services
from images.models import Image, Rootfs
from images.services import imports
from images.uploads import discard, find_upload
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import run_child
from nexus_site.core.steps import Plan, Run, Step
from vms import lifecycle, services, warm
from vms.choice import foretold
from vms.models import VM
from vms.queries import vm_list
from vms.shape import USUAL, shape_in
from vms.states import AT_REST, Desired, State
from vms.transitions import move


def plan(operation: Operation) -> Plan:
    """The steps from the source to the target that the operation's kind names."""
    target, _, source = operation.kind.partition(".from-")
    steps: list[Step] = []
    if source == "upload":
        steps.append(Step("rootfs", "Take the file in", take_in, done=is_taken_in, undo=give_back))
    if source == "rootfs":
        steps.append(Step("rootfs", "Fetch the root file system", fetch, done=rootfs_is_there))
    if source in ("upload", "rootfs"):
        steps.append(
            Step(
                "template",
                "Write the template",
                write_template,
                done=template_is_there,
                undo=drop_template if source == "upload" else None,
            )
        )
    if source != "image":
        steps.append(Step("build", "Build the image", build, done=image_is_there, keeps=True))
    steps.append(Step("image", "Check the image", check_image))
    if target != "image":
        steps.append(
            Step("drive", "Make the drive", make_drive, undo=drop_drive, keeps=target == "drive")
        )
    if target == "vm":
        steps += [
            Step("vm", "Make the VM", make_vm, undo=drop_vm, keeps=True),
            Step(
                "start",
                "Start the VM",
                start,
                done=lifecycle.already_launched,
                undo=lifecycle.kill,
                keeps=True,
                foresee=foresee_hypervisor,
            ),
            Step("agent", "Wait for the agent", lifecycle.wait_for_agent),
        ]
    return steps


# Rootfs


def fetch(run: Run) -> str:
    rootfs = image_services.ensure_rootfs(
        run.params["distro"], run.params["version"], run, provider=run.params["provider"]
    )
    run.keep(rootfs=rootfs.ref)
    return f"{rootfs}, {rootfs.size_bytes / 1e6:.0f} MB"


def rootfs_is_there(run: Run) -> str | None:
    return f"{_rootfs(run)} is there" if _rootfs(run) else None


def take_in(run: Run) -> str:
    """An uploaded file becomes a root file system like any other."""
    params = run.params

    def open_child(parent: Operation) -> Operation:
        return imports.import_rootfs(
            replace(find_upload(params["upload"]), filename=params["filename"]),
            distro=params["distro"],
            version=params["version"],
            format=params["format"],
            checked=params["checked"],
            parent=parent,
        )

    child = run_child(run, "import_operation", open_child)
    run.keep(rootfs=child.result["rootfs"])
    return str(_rootfs(run))


def give_back(run: Run) -> None:
    """No image came of the file: it is of no use."""
    kept = _rootfs(run) if "rootfs" in run.made else None
    if kept is not None:
        image_services.delete_rootfs(kept)


def is_taken_in(run: Run) -> str | None:
    """The same file may have been uploaded before."""
    kept = imports.find_imported(run.params["sha256"])
    if kept is None or not image_services.rootfs_path(kept).exists():
        return None
    if run.operation.started_at:
        run.keep(rootfs=kept.ref)
        discard(run.params["upload"])
    return f"{kept} is there"


def import_failed(operation: Operation, error: NexusError) -> None:
    """The upload is of no use any more."""
    discard(operation.params["upload"])


def _rootfs(run: Run) -> Rootfs | None:
    if ref := run.made.get("rootfs"):
        return Rootfs.objects.filter(pk=NexusID.parse(ref)).first()
    distro, version = run.params["distro"], run.params["version"]
    return image_services.installed_rootfs(distro, version, provider=run.params["provider"])


# Template


def write_template(run: Run) -> str:
    rootfs = _rootfs(run)
    if rootfs is None:
        raise Conflict("The rootfs has been removed meanwhile.", code="rootfs-gone")
    template = build_services.write_plain_template(rootfs)
    run.keep(template=template.ref)
    return template.name


def drop_template(run: Run) -> None:
    template = _template(run) if "template" in run.made else None
    if template is not None:
        build_services.delete_template(template)


def template_is_there(run: Run) -> str | None:
    template = _template(run)
    return f"{template.name} is there" if template else None


def _template(run: Run) -> Template | None:
    """The template that was asked for, or one that is the rootfs and nothing else."""
    if ref := run.params.get("template") or run.made.get("template"):
        return Template.objects.filter(pk=NexusID.parse(ref)).first()
    rootfs = _rootfs(run)
    return build_services.plain_template(rootfs) if rootfs else None


# Build and image


def build(run: Run) -> str:
    template = _template(run)
    if template is None:
        raise Conflict("The template has been removed meanwhile.", code="template-gone")

    def open_child(parent: Operation) -> Operation:
        return build_services.trigger_build(
            template, image_name=run.params.get("image_name", ""), parent=parent
        )

    child = run_child(run, "build_operation", open_child)
    image = Image.objects.get(pk=NexusID.parse(child.result["image"]))
    run.keep(image=image.ref)
    return image.name


def image_is_there(run: Run) -> str | None:
    template = _template(run)
    image = _current(run, template) if template else None
    return f"{image.name} is there" if image else None


def check_image(run: Run) -> str:
    image = _image(run)
    image_services.require_file(image)
    with transaction.atomic():
        run.keep(image=image.ref)
        _has_made(run, "image", image)
    return f"{image.name}, {image.os_name}"


def _image(run: Run) -> Image:
    ref = run.made.get("image") or run.params.get("image")
    if ref:
        image = Image.objects.filter(pk=NexusID.parse(ref)).first()
    else:
        template = _template(run)
        image = _current(run, template) if template else None
    if image is None:
        raise Conflict("The image has been removed meanwhile.", code="image-gone")
    return image


def _current(run: Run, template: Template) -> Image | None:
    return build_services.current_image(template, run.params.get("image_name", ""))


# Drive


def make_drive(run: Run) -> str:
    drive = _drive(run)
    if drive is None:
        with transaction.atomic():
            drive = drive_services.new_drive(
                _image(run),
                name=run.params["name"],
                size_mib=run.params.get("size_mib"),
                delete_with_vm=run.operation.kind.startswith("vm."),
            )
            run.keep(drive=drive.ref)
            _has_made(run, "drive", drive)
    if run.operation.kind.startswith("vm."):
        return warm.fill_for_start(drive, VM(**USUAL | shape_in(run.params)), run)
    return drive_services.fill(drive, run)


def drop_drive(run: Run) -> None:
    drive = _drive(run)
    if drive is not None:
        drive_services.discard(drive)


def _drive(run: Run) -> Drive | None:
    ref = run.made.get("drive")
    return Drive.objects.filter(pk=NexusID.parse(ref)).first() if ref else None


# VM


def make_vm(run: Run) -> str:
    if run.made.get("vm") and VM.objects.filter(pk=NexusID.parse(run.made["vm"])).exists():
        return "it is there"
    with transaction.atomic():
        kernel = services.find_kernel(run.params.get("kernel", ""))
        shape = USUAL | shape_in(run.params)
        vm = services.new_vm(run.params["name"], shape=shape, kernel=kernel)
        drive = _drive(run)
        assert drive is not None, "the step before made it"
        services.attach_drive(vm, drive)
        run.keep(vm=vm.ref)
        _has_made(run, "vm", vm)
    return vm.name


def drop_vm(run: Run) -> None:
    vm = VM.objects.filter(pk=NexusID.parse(run.made["vm"])).first() if "vm" in run.made else None
    if vm is not None:
        lifecycle.remove(vm)


def start(run: Run) -> str:
    vm = lifecycle.vm_of(run, vm_list())
    if vm.state in AT_REST:
        services.wish(vm, Desired.RUNNING)
        move(vm, State.STARTING, "started after its creation")
    lifecycle.require_drives(vm)
    return lifecycle.launch_with(lifecycle.kernel_for(vm), vm, run)


def foresee_hypervisor(run: Run) -> str:
    return foretold(run.params.get("hypervisor", VM.Hypervisor.AUTO))


def _has_made(run: Run, kind: str, made: Image | Drive | VM) -> None:
    """The operation is about what it makes, as soon as that is there."""
    operation = run.operation
    if operation.subject_kind == kind:
        operation.subject_id, operation.subject_name = made.pk, made.name
        operation.save(update_fields=["subject_id", "subject_name"])
