"""nexusctl vm pause, unpause, suspend, resume, checkpoint, fork."""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Command, Work, pass_app, show_named, work_options
from nexusctl.commands.vm_snapshots import how, name_option, vm_argument
from nexusctl.formatting import ago, size

cold_option = click.option(
    "--cold", is_flag=True, help="Let its guest boot; the memory it could go on from is given up."
)


@click.command(cls=Command)
@vm_argument
@work_options
@pass_app
def pause(app: App, vm: str, work: Work) -> None:
    """Stop the CPUs of a VM until it is unpaused."""
    _show(app.change("POST", f"/vms/{vm}/pause", work))


@click.command(cls=Command)
@vm_argument
@work_options
@pass_app
def unpause(app: App, vm: str, work: Work) -> None:
    """Let a paused VM go on."""
    _show(app.change("POST", f"/vms/{vm}/unpause", work))


@click.command(cls=Command)
@vm_argument
@work_options
@pass_app
def suspend(app: App, vm: str, work: Work) -> None:
    """Save a VM's memory to the disk and give its share of the host back.

    It goes on where it was when it is resumed, also after a restart of the host.
    """
    _show(app.change("POST", f"/vms/{vm}/suspend", work))


@click.command(cls=Command)
@vm_argument
@cold_option
@work_options
@pass_app
def resume(app: App, vm: str, cold: bool, work: Work) -> None:
    """Let a suspended VM go on, and wait until it is ready."""
    _show(app.change("POST", f"/vms/{vm}/resume", work, body={"cold": cold}))


@click.command(cls=Command)
@vm_argument
@name_option
@work_options
@pass_app
def checkpoint(app: App, vm: str, name: str, work: Work) -> None:
    """Keep a VM's memory and drives as they are now; VMs can be forked from it.

    The VM stands still for a moment and goes on.
    """
    operation = app.change("POST", f"/vms/{vm}/checkpoint", work, body={"name": name})
    if operation:
        made = app.client.get(f"/vm-snapshots/{operation['result']['vm_snapshot']}")
        show_named(made)
        output.note(f"{size(made['memory_bytes'])} of memory; its drives {how(made)}.")


@click.command(cls=Command)
@vm_argument
@click.option("-n", "--count", type=click.IntRange(1, 100), default=1, show_default=True)
@click.option(
    "--name", default="", help="Of the fork; of several what stands before their numbers."
)
@click.option("--snapshot", default="", help="A checkpoint of the VM; left out, as it is now.")
@click.option("--no-start", is_flag=True, help="Let them wait; each goes on once it is started.")
@work_options
@pass_app
def fork(
    app: App, vm: str, count: int, name: str, snapshot: str, no_start: bool, work: Work
) -> None:
    """Make VMs that go on from where another one is, or was at a checkpoint.

    Each has copies of all drives and an identity of its own.
    """
    body = {"count": count, "name": name, "snapshot": snapshot, "start": not no_start}
    operation = app.change("POST", f"/vms/{vm}/fork", work, body=body)
    if operation:
        _show_forks(operation["result"]["forks"])


COMMANDS = (pause, unpause, suspend, resume, checkpoint, fork)


def idle(vm: dict[str, Any]) -> str:
    """When a VM suspends itself, and what is known of the memory of one that is suspended."""
    minutes, saved = vm["idle_suspend_minutes"], vm["saved_memory"]
    text = f"suspended after {minutes} min" if minutes else "never suspended"
    if saved:
        text += f"\n{size(saved['bytes'])} of memory saved {ago(saved['saved_at'])} ago"
    return text


def _show(operation: dict[str, Any] | None) -> None:
    if operation:
        show_named(operation["subject"])


def _show_forks(forks: list[dict[str, Any]]) -> None:
    for made in forks:
        show_named({"name": made["name"], "id": made["vm"]})
        if "error" in made:
            error = made["error"]
            output.note(f"{made['name']} is {made['state']}: {error['text']} {error['hint']}")
