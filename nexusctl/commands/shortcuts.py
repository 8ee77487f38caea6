"""``from-rootfs``, ``from-template`` and ``from-image``: the same pattern, to different depths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from nexusctl.app import App, Command, Work, pass_app, show_named, work_options
from nexusctl.commands.vm_shape import new_vm_options
from nexusctl.commands.warm import cold_option
from nexusctl.sizes import SIZE

_SOURCES: dict[str, tuple[tuple[str, ...], str]] = {
    "rootfs": (("distro", "version"), "a distribution"),
    "template": (("template",), "a template"),
    "image": (("image",), "an image"),
}
_TARGETS = {
    "image": "An image of {source}, built unless it is there.",
    "drive": "A drive of {source}.",
    "vm": "From {source} to a ready VM, in one go.",
}
_PROVIDER = click.option("--provider", default="", help="Left out, the first that has it.")
_NAME = click.option("--name", default="", help="Left out, a name is generated.")
_OPTIONS: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "image": (),
    "drive": (click.option("--size", "size_mib", type=SIZE, help="Grow it: 20G, 512M…"),),
    "vm": (cold_option, new_vm_options),
}


def add_shortcuts(group: click.Group, target: str, *sources: str) -> None:
    """Give ``group`` a command for each of ``sources``."""
    for source in sources:
        group.add_command(_command(target, source))


def _command(target: str, source: str) -> click.Command:
    names, shown = _SOURCES[source]

    def run(app: App, /, work: Work, shape: dict[str, Any] | None = None, **wishes: Any) -> None:
        body = wishes | (shape or {})
        operation = app.change("POST", f"/{target}s/from-{source}", work, body=body)
        if operation and operation["subject"]:
            show_named(operation["subject"])

    function = pass_app(work_options(run))
    options = [_NAME, *_OPTIONS[target], *([_PROVIDER] if source == "rootfs" else [])]
    for option in reversed(options):
        function = option(function)
    for name in reversed(names):
        function = click.argument(name)(function)
    help_text = _TARGETS[target].format(source=shown)
    return click.command(f"from-{source}", cls=Command, help=help_text)(function)
