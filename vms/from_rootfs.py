"""The chain in one operation: rootfs → template → build → image → drive → VM → ready."""

from __future__ import annotations

from django.db import transaction

from builds import services as build_services
from builds.models import Template
from drives import services as drive_services
from drives.models import Drive
from images import services as image_services
from images.models import Image, Rootfs
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import run_child
from nexus_site.core.steps import Plan, Run, Step
from vms import lifecycle, services
from vms.models import VM
from vms.states import AT_REST, State
from vms.transitions import move


def plan(operation: Operation) -> Plan:
    return [
        Step("rootfs", "Fetch the root file system", fetch, done=rootfs_is_there),
        Step("template", "Write the template", write_template, done=template_is_there),
        Step("build", "Build the image", build, done=image_is_there),
        Step("image", "Check the image", check_image),
        Step("drive", "Make the drive", make_drive, undo=drop_drive),
        Step("vm", "Make the VM", make_vm, undo=drop_vm, keeps=True),
        Step(
            "start",
            "Start the VM",
            start,
            done=lifecycle.already_launched,
            undo=lifecycle.kill,
            keeps=True,
        ),
        Step("agent", "Wait for the agent", lifecycle.wait_for_agent),
    ]


def fetch(run: Run) -> str:
    rootfs = image_services.ensure_rootfs(run.params["distro"], run.params["version"], run)
    return f"{rootfs}, {rootfs.size_bytes / 1e6:.0f} MB"


def rootfs_is_there(run: Run) -> str | None:
    return f"{_rootfs(run)} is there" if _rootfs(run) else None


def write_template(run: Run) -> str:
    rootfs = _rootfs(run)
    if rootfs is None:
        raise Conflict("The rootfs has been removed meanwhile.", code="rootfs-gone")
    return build_services.create_template(name=_base_name(run), rootfs=rootfs).name


def template_is_there(run: Run) -> str | None:
    template = _template(run)
    return f"{template.name} is there" if template else None


def build(run: Run) -> str:
    template = _template(run)
    if template is None:
        raise Conflict("The template has been removed meanwhile.", code="template-gone")

    def open_child(parent: Operation) -> Operation:
        return build_services.trigger_build(template, parent=parent)

    child = run_child(run, "build_operation", open_child)
    image = Image.objects.get(pk=NexusID.parse(child.result["image"]))
    run.keep(image=image.ref)
    return image.name


def image_is_there(run: Run) -> str | None:
    template = _template(run)
    image = build_services.current_image(template) if template else None
    return f"{image.name} is there" if image else None


def check_image(run: Run) -> str:
    image = _image(run)
    image_services.require_file(image)
    run.keep(image=image.ref)
    return f"{image.name}, {image.os_name}"


def make_drive(run: Run) -> str:
    """The VM's root drive; its row is named after the VM."""
    drive = _drive(run)
    if drive is None:
        with transaction.atomic():
            drive = drive_services.new_drive(_image(run), name=run.params["name"])
            run.keep(drive=drive.ref)
    return drive_services.fill(drive, run)


def drop_drive(run: Run) -> None:
    drive = _drive(run)
    if drive is not None:
        drive_services.discard(drive)


def make_vm(run: Run) -> str:
    if run.made.get("vm") and VM.objects.filter(pk=NexusID.parse(run.made["vm"])).exists():
        return "it is there"
    with transaction.atomic():
        vm = services.new_vm(
            run.params["name"],
            vcpu_count=run.params["vcpu_count"],
            mem_size_mib=run.params["mem_size_mib"],
        )
        drive = _drive(run)
        assert drive is not None, "the step before made it"
        services.attach_drive(vm, drive)
        Operation.objects.filter(pk=run.operation.pk).update(subject_id=vm.pk)
        run.operation.subject_id = vm.pk
        run.keep(vm=vm.ref)
    return vm.name


def drop_vm(run: Run) -> None:
    vm = VM.objects.filter(pk=NexusID.parse(run.made["vm"])).first() if "vm" in run.made else None
    if vm is not None:
        lifecycle.remove(vm)


def start(run: Run) -> str:
    vm = lifecycle.vm_of(run)
    if vm.state in AT_REST:
        move(vm, State.STARTING, "started after its creation")
    lifecycle.check_drives(run)
    lifecycle.prepare_kernel(run)
    return lifecycle.launch(run)


def _base_name(run: Run) -> str:
    """``alpine-3-23``: how the template and the image of a distribution are called."""
    return f"{run.params['distro']}-{run.params['version']}".lower().replace(".", "-")


def _rootfs(run: Run) -> Rootfs | None:
    return image_services.installed_rootfs(run.params["distro"], run.params["version"])


def _template(run: Run) -> Template | None:
    rootfs = _rootfs(run)
    return build_services.template_for(rootfs, _base_name(run)) if rootfs else None


def _image(run: Run) -> Image:
    if ref := run.made.get("image"):
        return Image.objects.get(pk=NexusID.parse(ref))
    template = _template(run)
    image = build_services.current_image(template) if template else None
    if image is None:
        raise Conflict("The image has been removed meanwhile.", code="image-gone")
    return image


def _drive(run: Run) -> Drive | None:
    ref = run.made.get("drive")
    return Drive.objects.filter(pk=NexusID.parse(ref)).first() if ref else None
