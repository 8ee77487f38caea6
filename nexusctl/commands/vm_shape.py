"""What a VM is to be like: the options that all commands share which make or change one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from nexusctl.sizes import LIMIT, MINUTES

F = TypeVar("F", bound=Callable[..., Any])

_WISHES = (
    click.option(
        "--hypervisor",
        type=click.Choice(["auto", "firecracker", "qemu"]),
        help="What it is to run on.",
    ),
    click.option(
        "--disk-limit",
        "disk_mib_s",
        type=LIMIT,
        help="What each disk may read and write in a second: 50M, 1G, none.",
    ),
    click.option(
        "--disk-iops", type=click.IntRange(0), help="How often each disk may do so; 0: no limit."
    ),
    click.option(
        "--network-limit",
        "network_mib_s",
        type=LIMIT,
        help="What it may send, and receive, in a second: 10M, none.",
    ),
    click.option(
        "--restart",
        "restart_policy",
        type=click.Choice(["no", "on-failure", "always"]),
        help="When it has ended unasked: leave it; start it again if it failed; or always.",
    ),
    click.option(
        "--on-unreachable",
        "unreachable_action",
        type=click.Choice(["keep", "restart", "stop"]),
        help="What is done once its agent does not answer.",
    ),
    click.option(
        "--idle-suspend",
        "idle_suspend_minutes",
        type=MINUTES,
        help="Suspend it after so long without work: 10m, 2h, never. Who needs it wakes it.",
    ),
)
_NEW = (
    click.option("--vcpus", "vcpu_count", type=int, default=1, show_default=True),
    click.option(
        "--memory",
        "mem_size_mib",
        type=int,
        default=512,
        show_default=True,
        metavar="MIB",
        help="In MiB.",
    ),
    *_WISHES,
)
_CHANGED = (
    click.option("--vcpus", "vcpu_count", type=int, help="Left out, as many as the VM has."),
    click.option(
        "--memory",
        "mem_size_mib",
        type=int,
        metavar="MIB",
        help="In MiB; left out, as much as the VM has.",
    ),
    *_WISHES,
)
_FIELDS = (
    "vcpu_count",
    "mem_size_mib",
    "hypervisor",
    "disk_mib_s",
    "disk_iops",
    "network_mib_s",
    "restart_policy",
    "unreachable_action",
    "idle_suspend_minutes",
)


_NEW_KERNEL = click.option(
    "--kernel", default="", help="Always start it with this one; left out, with the default."
)
_CHANGED_KERNEL = click.option(
    "--kernel",
    callback=lambda _, __, name: "" if name == "default" else name,
    help="Always start it with this one; “default”: with the default.",
)


def new_shape_options(function: F) -> F:
    """The options of a new VM, as the argument ``shape``: what the API takes, where given."""
    return _with(_NEW, function)


def changed_shape_options(function: F) -> F:
    """The same for a VM that is like another, or was; nothing is given by itself."""
    return _with(_CHANGED, function)


def new_vm_options(function: F) -> F:
    """Those of a new VM and its kernel, all in ``shape``."""
    return _with((*_NEW, _NEW_KERNEL), function)


def changed_vm_options(function: F) -> F:
    """Those that change a VM and its kernel, all in ``shape``."""
    return _with((*_CHANGED, _CHANGED_KERNEL), function)


def _with(options: tuple[Callable[[Any], Any], ...], function: F) -> F:
    @functools.wraps(function)
    def wrapper(*args: Any, **values: Any) -> Any:
        given = {name: values.pop(name) for name in (*_FIELDS, "kernel") if name in values}
        shape = {name: value for name, value in given.items() if value is not None}
        return function(*args, shape=shape, **values)

    decorated: Any = wrapper
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]
