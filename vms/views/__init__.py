"""The pages of VMs: the list, one VM, a new one, and the buttons on them."""

from vms.views.actions import (
    attach_drive,
    delete,
    detach_drive,
    rename,
    resize,
    restart,
    start,
    stop,
)
from vms.views.create import from_image, new, preview
from vms.views.pages import console_text, detail, vm_list

__all__ = [
    "attach_drive",
    "console_text",
    "delete",
    "detach_drive",
    "detail",
    "from_image",
    "new",
    "preview",
    "rename",
    "resize",
    "restart",
    "start",
    "stop",
    "vm_list",
]
