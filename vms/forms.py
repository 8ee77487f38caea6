"""What people fill in about VMs. The rules are the services'; forms only give types."""

from __future__ import annotations

from typing import Any

from django import forms

from images import services as image_services
from nexus_site.core.forms import ServiceForm
from nexus_site.core.ids import NAME_RULE
from vms.capacity import HostCapacity
from vms.models import VM


class FromRootfsForm(ServiceForm):
    """A VM from a distribution."""

    code_fields = ServiceForm.code_fields | {
        "too-many-cpus": "vcpu_count",
        "memory-size": "mem_size_mib",
        "rootfs-not-found": "rootfs",
    }

    rootfs = forms.ChoiceField(label="Distribution")
    name = forms.CharField(
        required=False,
        max_length=63,
        label="Name",
        help_text="Left empty, Nexus chooses a readable one.",
        widget=forms.TextInput(attrs={"placeholder": "calm-otter", "autocomplete": "off"}),
    )
    vcpu_count = forms.IntegerField(min_value=1, initial=1, label="vCPUs")
    mem_size_mib = forms.IntegerField(min_value=64, initial=512, label="Memory")

    def __init__(self, *args: Any, host: HostCapacity, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offers = image_services.list_rootfs_offers()
        choices = [
            (f"{offer.distro}:{offer.version}", f"{offer.distro.capitalize()} {offer.version}")
            for offer in offers
        ]
        rootfs = self.fields["rootfs"]
        assert isinstance(rootfs, forms.ChoiceField)
        rootfs.choices = choices
        self.fields["vcpu_count"].help_text = f"The host has {host.cpus}."
        self.fields[
            "mem_size_mib"
        ].help_text = (
            f"The host has {host.memory_mib} MiB, {host.memory_available_mib} of them free."
        )
        self.fields["mem_size_mib"].widget.attrs["step"] = 64

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``create_from_rootfs``."""
        distro, _, version = self.cleaned_data["rootfs"].partition(":")
        rest = ("name", "vcpu_count", "mem_size_mib")
        return {"distro": distro, "version": version} | {
            name: self.cleaned_data[name] for name in rest
        }


class FromImageForm(ServiceForm):
    """A VM from an image that is here already."""

    image = forms.CharField()
    name = forms.CharField(required=False, max_length=63)
    vcpu_count = forms.IntegerField(min_value=1)
    mem_size_mib = forms.IntegerField(min_value=64)


class RenameForm(ServiceForm):
    name = forms.CharField(max_length=63, label="New name", help_text=NAME_RULE)


class ResizeForm(ServiceForm):
    vcpu_count = forms.IntegerField(min_value=1, label="vCPUs")
    mem_size_mib = forms.IntegerField(min_value=64, label="Memory")

    @classmethod
    def of(cls, vm: VM) -> ResizeForm:
        return cls(initial={"vcpu_count": vm.vcpu_count, "mem_size_mib": vm.mem_size_mib})
