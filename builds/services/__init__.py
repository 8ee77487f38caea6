"""The rules about templates and builds: the only code that changes any of it."""

from builds.services.builds import (
    LogPage,
    current_image,
    find_build,
    inputs_for,
    read_log,
    sweep,
    trigger_build,
    verify_image,
)
from builds.services.documents import edit_template, import_template, kept_rootfs
from builds.services.kernels import check_kernel_version, start_kernel_build, sweep_kernel_builds
from builds.services.plain import plain_template, write_plain_template
from builds.services.templates import (
    copy_template,
    create_template,
    delete_template,
    find_version,
    images_of,
    rename_template,
    revert_template,
    template_for,
    update_template,
)

__all__ = [
    "LogPage",
    "check_kernel_version",
    "copy_template",
    "create_template",
    "current_image",
    "delete_template",
    "edit_template",
    "find_build",
    "find_version",
    "images_of",
    "import_template",
    "inputs_for",
    "kept_rootfs",
    "plain_template",
    "read_log",
    "rename_template",
    "revert_template",
    "start_kernel_build",
    "sweep",
    "sweep_kernel_builds",
    "template_for",
    "trigger_build",
    "update_template",
    "verify_image",
    "write_plain_template",
]
