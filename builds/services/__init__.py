"""The rules about templates and builds: the only code that changes any of it."""

from builds.services.builds import LogPage, current_image, read_log, sweep, trigger_build
from builds.services.templates import create_template, delete_template, template_for

__all__ = [
    "LogPage",
    "create_template",
    "current_image",
    "delete_template",
    "read_log",
    "sweep",
    "template_for",
    "trigger_build",
]
