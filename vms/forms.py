"""What people fill in about VMs. The rules are the services'; forms only give types."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from builds.models import Template
from drives import services as drive_services
from drives.models import Drive, Snapshot
from drives.services import size_text
from images import services as image_services
from images.models import Image
from nexus_site.core.forms import ServiceForm
from nexus_site.core.ids import NAME_RULE
from nexus_site.core.models import Operation
from vms import shortcuts
from vms.capacity import HostCapacity, host_capacity
from vms.models import VM, VMSnapshot
from vms.shape_forms import SHAPE_CODES, UNNAMED, MemoryField, kernel_field, shape_fields
from vms.shortcuts import Target


class SourceField(forms.ModelChoiceField):  # type: ignore[type-arg]
    """A drive or a snapshot to copy."""

    def label_from_instance(self, obj: Drive | Snapshot) -> str:
        of = f" of {obj.drive.name}" if isinstance(obj, Snapshot) else ""
        return f"{obj.name}{of} ({size_text(obj)})"


class CreateForm(ServiceForm):
    """Something new from a source: first the source, then how the new thing is to be."""

    code_fields = ServiceForm.code_fields | {
        **SHAPE_CODES,
        "drive-too-small": "size_mib",
        "rootfs-not-found": "rootfs",
    }
    source: ClassVar[str]

    def __init__(self, *args: Any, target: Target, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.target = target
        self.fields |= _WISHES[target]()
        self._wishes = [name for name in self.fields if name != self.source]

    @property
    def possible(self) -> bool:
        """Whether there is anything to start from."""
        field = self.fields[self.source]
        assert isinstance(field, forms.ChoiceField)
        return bool(field.choices)

    @property
    def api_path(self) -> str:
        """Where the API does the same."""
        return f"/v1/{self.target}s/from-{self.source}"

    def wishes(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in self._wishes}

    def start(self) -> dict[str, Any]:
        """Where it starts, as the API takes it."""
        return {self.source: self.cleaned_data[self.source].name}

    def request_body(self) -> dict[str, Any]:
        """What ``POST`` to ``api_path`` takes to do the same."""
        wanted = self.start() | self.wishes()
        return {
            name: value for name, value in wanted.items() if value and value != UNNAMED.get(name)
        }

    def command(self) -> list[str]:
        """The words of the command that does the same."""
        words = ["nexusctl", self.target, f"from-{self.source}"]
        body = self.request_body()
        words += [body[name] for name in self.start() if name not in _OPTIONS and name in body]
        for name, option in _OPTIONS.items():
            if name in body:
                words += [option] if body[name] is True else [option, str(body[name])]
        return words

    def submit(self) -> Operation:
        """Have it made. Raises what the services object to."""
        raise NotImplementedError


class FromRootfsForm(CreateForm):
    source = "rootfs"

    rootfs = forms.ChoiceField(label="Distribution")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["rootfs"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = list(_rootfs_choices().items())

    def start(self) -> dict[str, Any]:
        distro, version, *provider = self.cleaned_data["rootfs"].split(":")
        return {"distro": distro, "version": version} | (
            {"provider": provider[0]} if provider else {}
        )

    def submit(self) -> Operation:
        return shortcuts.from_rootfs(self.target, **self.start(), **self.wishes())


class FromTemplateForm(CreateForm):
    source = "template"

    template = forms.ModelChoiceField(
        Template.objects.order_by("name"),
        label="Template",
        empty_label=None,
        help_text="Its image is built first, unless it is there, unchanged.",
    )

    def submit(self) -> Operation:
        template = self.cleaned_data["template"]
        return shortcuts.from_template(self.target, template, **self.wishes())


class FromImageForm(CreateForm):
    source = "image"

    image = forms.ModelChoiceField(Image.objects.order_by("name"), label="Image", empty_label=None)

    def submit(self) -> Operation:
        assert self.target != "image"
        return shortcuts.from_image(self.target, self.cleaned_data["image"], **self.wishes())


class CopyForm(CreateForm):
    """A drive that is a copy of something that is here."""

    api_path = "/v1/drives"

    def command(self) -> list[str]:
        body = self.request_body()
        words = ["nexusctl", "drive", "create", f"--from-{self.source}", body[self.source]]
        words += ["--name", body["name"]] if "name" in body else []
        return words + (["--size", f"{body['size_mib']}M"] if "size_mib" in body else [])


class FromDriveForm(CopyForm):
    source = "drive"

    drive = SourceField(
        drive_services.drive_list().filter(state=Drive.State.READY).order_by("name"),
        label="Drive",
        empty_label=None,
        help_text="The new one is a copy of what is on it now.",
    )

    def submit(self) -> Operation:
        return drive_services.create_drive(drive=self.cleaned_data["drive"], **self.wishes())


class FromSnapshotForm(CopyForm):
    source = "snapshot"

    snapshot = SourceField(
        drive_services.snapshot_list()
        .filter(state=Snapshot.State.READY)
        .order_by("drive__name", "created_at"),
        label="Snapshot",
        empty_label=None,
    )

    def submit(self) -> Operation:
        return drive_services.create_drive(snapshot=self.cleaned_data["snapshot"], **self.wishes())


class EmptyForm(CreateForm):
    """A drive that starts from nothing."""

    source = "empty"
    possible = True
    api_path = "/v1/drives"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        size = self.fields["size_mib"]
        size.required, size.help_text = True, "An ext4 file system of that size is made."

    def start(self) -> dict[str, Any]:
        return {}

    def command(self) -> list[str]:
        body = self.request_body()
        words = ["nexusctl", "drive", "create", "--size", f"{body['size_mib']}M"]
        return words + (["--name", body["name"]] if "name" in body else [])

    def submit(self) -> Operation:
        return drive_services.create_drive(**self.wishes())


FORMS: dict[str, type[CreateForm]] = {
    form.source: form
    for form in (
        FromRootfsForm,
        FromTemplateForm,
        FromImageForm,
        EmptyForm,
        FromDriveForm,
        FromSnapshotForm,
    )
}

#: Options of ``nexusctl``; what is not here is an argument.
_OPTIONS = {
    "name": "--name",
    "provider": "--provider",
    "size_mib": "--size",
    "vcpu_count": "--vcpus",
    "mem_size_mib": "--memory",
    "hypervisor": "--hypervisor",
    "disk_mib_s": "--disk-limit",
    "disk_iops": "--disk-iops",
    "network_mib_s": "--network-limit",
    "restart_policy": "--restart",
    "unreachable_action": "--on-unreachable",
    "idle_suspend_minutes": "--idle-suspend",
    "kernel": "--kernel",
    "cold": "--cold",
}


def _rootfs_choices() -> dict[str, str]:
    """What providers offer; the provider is named where an earlier one has the same."""
    choices: dict[str, str] = {}
    for offer in image_services.list_rootfs_offers():
        value, shown = f"{offer.distro}:{offer.version}", f"{offer.distro.capitalize()} "
        again = value in choices
        value += f":{offer.provider}" if again else ""
        choices[value] = f"{shown}{offer.version}" + (f" of {offer.provider}" if again else "")
    return choices


def _name(help_text: str, placeholder: str = "") -> forms.Field:
    attributes = {"placeholder": placeholder, "autocomplete": "off", "spellcheck": "false"}
    return forms.CharField(
        required=False,
        max_length=63,
        label="Name",
        help_text=help_text,
        widget=forms.TextInput(attrs=attributes),
    )


def _image_wishes() -> dict[str, forms.Field]:
    return {"name": _name("Left empty, it is named after the template.")}


def _drive_wishes() -> dict[str, forms.Field]:
    size = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=64 << 20,
        label="Size",
        help_text="Left empty, that of what it is made from.",
    )
    return {"name": _name("Left empty, Nexus chooses one."), "size_mib": size}


def _vm_wishes() -> dict[str, forms.Field]:
    host: HostCapacity = host_capacity()
    memory = forms.IntegerField(
        min_value=64,
        initial=512,
        label="Memory",
        help_text=f"The host has {host.memory_mib} MiB, {host.memory_available_mib} of them free.",
        widget=forms.NumberInput(attrs={"step": 64}),
    )
    cpus = forms.IntegerField(
        min_value=1, initial=1, label="vCPUs", help_text=f"The host has {host.cpus}."
    )
    name = _name("Left empty, Nexus chooses a readable one.", "calm-otter")
    cold = forms.BooleanField(
        required=False,
        label="Boot from the start",
        help_text="Else it goes on from a warm template of its image, where there is one.",
    )
    shape = {"vcpu_count": cpus, "mem_size_mib": memory, **shape_fields()}
    return {"name": name, **shape, "kernel": kernel_field(), "cold": cold}


_WISHES = {"image": _image_wishes, "drive": _drive_wishes, "vm": _vm_wishes}


class ImportImageForm(ServiceForm):
    """An image from a file of one's own."""

    code_fields = ServiceForm.code_fields | {"checksum": "sha256", "upload-empty": "file"}

    file = forms.FileField(
        label="File",
        max_length=200,
        allow_empty_file=False,
        help_text="A root file system as ext4, qcow2, tar or OCI archive; compressed ones too.",
    )
    name = _name("Left empty, Nexus chooses one.")
    sha256 = forms.RegexField(
        r"\A[0-9a-fA-F]{64}\Z",
        required=False,
        label="SHA-256",
        help_text="Given, the file is refused unless it has this checksum.",
        error_messages={"invalid": "A SHA-256 has 64 hexadecimal digits."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )


class RollbackForm(ServiceForm):
    """``stop``: what the person was shown would be done to a VM that runs."""

    stop = forms.BooleanField(required=False, widget=forms.HiddenInput())


class VMSnapshotField(forms.ModelChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: VMSnapshot) -> str:
        return f"was in {obj.name}"


class CloneForm(ServiceForm):
    """A VM like another one."""

    code_fields = ServiceForm.code_fields | SHAPE_CODES

    snapshot = VMSnapshotField(
        VMSnapshot.objects.none(), required=False, label="As it", empty_label="is now"
    )
    vcpu_count = forms.IntegerField(min_value=1, label="vCPUs")
    mem_size_mib = MemoryField(min_value=64, label="Memory")
    hypervisor = forms.ChoiceField(choices=VM.Hypervisor.choices, label="Hypervisor")
    start = forms.BooleanField(required=False, initial=True, label="Start it at once")

    def __init__(self, *args: Any, vm: VM, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields = {"name": _name("Left empty, Nexus chooses a readable one.")} | self.fields
        choice = self.fields["snapshot"]
        assert isinstance(choice, forms.ModelChoiceField)
        choice.queryset = vm.snapshots.filter(state=VMSnapshot.State.READY)


class RenameForm(ServiceForm):
    name = forms.CharField(max_length=63, label="New name", help_text=NAME_RULE)
