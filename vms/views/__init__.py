"""The pages of VMs: the list, one VM, a new one (or a new drive or image), and the buttons."""

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
from vms.views.create import new, preview
from vms.views.pages import console_text, detail, vm_list
from vms.views.uploads import import_image

__all__ = [
    "attach_drive",
    "console_text",
    "delete",
    "detach_drive",
    "detail",
    "import_image",
    "new",
    "preview",
    "rename",
    "resize",
    "restart",
    "start",
    "stop",
    "vm_list",
]
