"""The pages of VMs: the list, one VM, a new one (or a new drive or image), and the buttons."""

from vms.views.actions import (
    attach_drive,
    change,
    delete,
    detach_drive,
    rename,
    restart,
    start,
    stop,
    upgrade_agent,
)
from vms.views.create import new, preview
from vms.views.pages import console_text, detail, vm_list
from vms.views.uploads import import_image

__all__ = [
    "attach_drive",
    "change",
    "console_text",
    "delete",
    "detach_drive",
    "detail",
    "import_image",
    "new",
    "preview",
    "rename",
    "restart",
    "start",
    "stop",
    "upgrade_agent",
    "vm_list",
]
