"""nexusctl vm …"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import click

from nexusctl import output
from nexusctl.app import (
    App,
    Group,
    Work,
    confirm,
    dry_run_option,
    pass_app,
    show_named,
    work_options,
    yes_option,
)
from nexusctl.commands import pool, suspension, vm_forward, vm_metrics, vm_provision, vm_snapshots
from nexusctl.commands.shortcuts import add_shortcuts
from nexusctl.commands.vm_cp import cp, ls
from nexusctl.commands.vm_exec import exec_
from nexusctl.commands.vm_session import session_
from nexusctl.commands.vm_shape import changed_vm_options, new_vm_options
from nexusctl.commands.vm_shell import shell
from nexusctl.commands.vm_upgrade import agent_upgrade
from nexusctl.commands.warm import cold_option
from nexusctl.formatting import ago, left, mib, moment, seconds, size, when
from nexusctl.sizes import SIZE

AT_REST = {"created", "stopped", "crashed", "failed", "suspended"}
HYPERVISORS = {"auto": "automatic", "firecracker": "Firecracker", "qemu": "QEMU"}
ACCELERATORS = {"kvm": "KVM", "tcg": "emulation"}
CONSOLE_WAIT = 5.0  # seconds that one question after more console output may wait

name_option = click.option("--name", default="", help="Left out, a name is generated.")
vm_argument = click.argument("vm", metavar="VM")


@click.group(cls=Group)
def vm() -> None:
    """MicroVMs."""


@vm.command("list")
@click.option("--state", default="", help="Only VMs in this state.")
@click.option("--image", default="", help="Only VMs on this image.")
@pass_app
def list_(app: App, state: str, image: str) -> None:
    """List VMs, newest first."""
    app.items("/vms", show_vms, state=state, image=image)


@vm.command()
@click.option("--image", default="", help="Make a drive of this image and boot from it.")
@click.option("--drive", default="", help="Boot from this drive instead.")
@name_option
@new_vm_options
@click.option("--start", is_flag=True, help="Start it as well.")
@cold_option
@vm_provision.provision_options
@work_options
@pass_app
def create(
    app: App,
    image: str,
    drive: str,
    name: str,
    start: bool,
    cold: bool,
    shape: dict[str, Any],
    given: dict[str, Any],
    work: Work,
) -> None:
    """Make a VM from an image, or around a drive."""
    body = {
        "image": image,
        "drive": drive,
        "name": name,
        "start": start,
        "cold": cold,
    } | shape
    body |= {"provisioning": given} if given else {}
    show_subject(app.change("POST", "/vms", work, body=body))


add_shortcuts(vm, "vm", "rootfs", "template", "image")
for command in (
    *(*vm_snapshots.COMMANDS, *suspension.COMMANDS, *vm_metrics.COMMANDS, *vm_provision.COMMANDS),
    *(exec_, vm_forward.forward, cp, ls, session_, shell, agent_upgrade),
):
    vm.add_command(command)
vm.add_command(pool.take, "from-pool")


@vm.command()
@vm_argument
@pass_app
def inspect(app: App, vm: str) -> None:
    """Show all about a VM."""
    app.answer(app.client.get(f"/vms/{vm}"), show_vm)


@vm.command()
@vm_argument
@cold_option
@work_options
@pass_app
def start(app: App, vm: str, cold: bool, work: Work) -> None:
    """Start a VM and wait until it is ready."""
    show_subject(app.change("POST", f"/vms/{vm}/start", work, body={"cold": cold}))


@vm.command()
@vm_argument
@click.option("--force", is_flag=True, help="Kill it without asking its guest.")
@work_options
@pass_app
def stop(app: App, vm: str, force: bool, work: Work) -> None:
    """Shut a VM down."""
    show_subject(app.change("POST", f"/vms/{vm}/stop", work, body={"force": force}))


@vm.command()
@vm_argument
@work_options
@pass_app
def restart(app: App, vm: str, work: Work) -> None:
    """Shut a VM down and start it again."""
    show_subject(app.change("POST", f"/vms/{vm}/restart", work))


@vm.command()
@vm_argument
@click.option("--force", is_flag=True, help="Stop it first if it runs.")
@click.option("--keep-drives", is_flag=True, help="Keep its drives, also those that go with it.")
@click.option("--with-snapshots", is_flag=True, help="Delete its snapshots as well.")
@yes_option
@work_options
@pass_app
def delete(
    app: App,
    vm: str,
    force: bool,
    keep_drives: bool,
    with_snapshots: bool,
    yes: bool,
    work: Work,
) -> None:
    """Delete a VM and the drives that go with it."""
    what = f"the VM {vm}" if keep_drives else f"the VM {vm} and its drives"
    confirm(f"Delete {what}?", yes=yes, work=work)
    query = {"force": force, "keep_drives": keep_drives, "with_snapshots": with_snapshots}
    app.change("DELETE", f"/vms/{vm}", work, query=query)


@vm.command()
@vm_argument
@click.argument("name")
@dry_run_option
@pass_app
def rename(app: App, vm: str, name: str, work: Work) -> None:
    """Give a VM another name."""
    row = app.change("PATCH", f"/vms/{vm}", work, body={"name": name})
    if row:
        show_named(row)


@vm.command()
@vm_argument
@changed_vm_options
@dry_run_option
@pass_app
def update(app: App, vm: str, shape: dict[str, Any], work: Work) -> None:
    """Change what a VM at rest is like.

    While it runs, what is done when it ends or does not answer, and for its next start its
    hypervisor.
    """
    if not shape:
        raise click.UsageError("Say what to change, such as --memory 1024.")
    row = app.change("PATCH", f"/vms/{vm}", work, body=shape)
    if row:
        show_named(row)
        if row["state"] not in AT_REST and "hypervisor" in shape:
            output.note("It takes effect when the VM starts next.")


@vm.command()
@vm_argument
@click.argument("size", type=SIZE)
@work_options
@pass_app
def balloon(app: App, vm: str, size: int, work: Work) -> None:
    """Have the guest of a running VM keep only SIZE (256M, 1G) of its memory.

    It gives the rest back as far as it can; with all of the VM's memory it takes it again.
    """
    app.change("POST", f"/vms/{vm}/balloon", work, body={"mem_size_mib": size})


@vm.command()
@vm_argument
@pass_app
def history(app: App, vm: str) -> None:
    """Show every state a VM was in, when and why."""
    app.items(f"/vms/{vm}/history", show_history)


@vm.command()
@vm_argument
@click.option("--follow", "-f", is_flag=True, help="Go on until the VM has ended.")
@pass_app
def logs(app: App, vm: str, follow: bool) -> None:
    """Print a VM's serial console."""
    wait = CONSOLE_WAIT if follow else 0
    page = app.client.get(f"/vms/{vm}/console")
    if app.json:
        output.as_json(page)
        return
    output.guest(page["text"])
    while page["next_offset"] < page["size"] or follow:
        page = app.client.get(f"/vms/{vm}/console", offset=page["next_offset"], wait=wait)
        output.guest(page["text"])
        if follow and not page["text"] and _is_at_rest(app, vm):
            return


def _is_at_rest(app: App, vm: str) -> bool:
    state = app.client.get(f"/vms/{vm}")["state"]
    if state in AT_REST:
        output.note(f"The VM is {state}; its console ends here.")
    return state in AT_REST


def show_subject(operation: dict[str, Any] | None) -> None:
    """The VM that an operation was about."""
    if operation and operation["subject"]:
        show_named(operation["subject"])


def show_vms(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "STATE", "SINCE", "IMAGE", "CPUS", "MEMORY", "AGENT"],
        [
            [
                row["name"],
                row["id"],
                output.state(row["state"]),
                ago(row["state_since"]),
                row["image"]["name"] if row["image"] else "",
                str(row["vcpu_count"]),
                mib(row["mem_size_mib"]),
                _agent_version(row),
            ]
            for row in rows
        ],
        empty="No VMs. Make one: nexusctl vm from-rootfs alpine 3.23",
    )


def show_vm(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("state", vm_provision.state_and_phase(row)),
            ("wanted", row["desired_state"]),
            ("image", _named(row["image"])),
            *([("taken from", f"pool {row['pool']['name']}")] if row.get("pool") else []),
            ("kernel", _named(row["kernel"]) if row["kernel"] else "the default kernel"),
            ("cpus", str(row["vcpu_count"])),
            ("memory", mib(row["mem_size_mib"])),
            ("drives", "\n".join(_drive(drive) for drive in row["drives"])),
            ("limits", _limits(row)),
            ("mac", row["mac"]),
            ("hypervisor", _hypervisor(row)),
            ("next start", _next_start(row)),
            ("agent", _agent(row)),
            ("restart", f"{_restarts(row)}\nwhen unreachable: {row['unreachable_action']}"),
            ("idle", suspension.idle(row)),
            ("last boot", _boot(row["last_boot"])),
            ("created", when(row["created_at"])),
        ]
    )


def show_history(rows: list[Any]) -> None:
    times = [moment(row["at"]) for row in rows]
    gaps = [""] + [f"+{seconds((late - early).total_seconds())}" for early, late in pairwise(times)]
    headings, *lines = output.columns(
        ["AT", "AFTER", "STATE", "REASON", "ACTOR"],
        [
            [when(row["at"]), gap, output.state(row["to_state"]), row["reason"], row["actor"]]
            for row, gap in zip(rows, gaps[: len(rows)], strict=True)
        ],
    )
    output.data(headings)
    for row, line in zip(rows, lines, strict=True):
        output.data(line)
        _show_post_mortem(row["detail"])


#: What is shown of a transition's detail, where it is there, in this order.
POST_MORTEM = {
    "choice": "chosen",
    "exit": "exit status",
    "last_heartbeat": "last heartbeat",
    "warning": "warning",
    "detail": "evidence",
    "console": "last console lines",
    "hint": "hint",
}


def _show_post_mortem(detail: dict[str, Any]) -> None:
    for field, title in POST_MORTEM.items():
        value = detail.get(field)
        lines = value if isinstance(value, list) else str(value or "").splitlines()
        if len(lines) == 1:
            output.data(f"    {title}: {output.plain(lines[0])}")
        elif lines:
            output.data(f"    {title}:")
            for line in lines:
                output.data(f"      {output.plain(line)}")


def _named(row: dict[str, Any] | None) -> str:
    return f"{row['name']} ({row['id']})" if row else ""


def _drive(drive: dict[str, Any]) -> str:
    kind = "root" if drive["is_root"] else "data"
    mode = ", read-only" if drive["read_only"] else ""
    return f"{_named(drive)}, {kind}, {size(drive['size_bytes'])}{mode}"


def _limits(row: dict[str, Any]) -> str:
    """Empty where there are none."""
    limits = {
        "each disk {} MiB/s": row["disk_mib_s"],
        "each disk {} operations/s": row["disk_iops"],
        "network {} MiB/s": row["network_mib_s"],
    }
    return ", ".join(text.format(value) for text, value in limits.items() if value)


def _hypervisor(row: dict[str, Any]) -> str:
    """What it runs on, or ran on last, and why."""
    boot = row["last_boot"]
    if not boot:
        return ""
    name = HYPERVISORS.get(boot["hypervisor"], boot["hypervisor"])
    how = [ACCELERATORS.get(boot["accelerator"], boot["accelerator"])]
    how += ["jailed"] if boot["jailed"] else []
    text = f"{name} {boot['hypervisor_version']}, {', '.join(how)}"
    return f"{text}\n{boot['choice']}" if boot["choice"] else text


def _next_start(row: dict[str, Any]) -> str:
    """What it is to run on, and what that will be."""
    wish, following = row["hypervisor"], row["next_start"]
    name = HYPERVISORS.get(following["hypervisor"], "not known")
    if wish == following["hypervisor"]:
        return name
    return f"{HYPERVISORS[wish]}: {name}\n{following['reason']}"


def _agent(row: dict[str, Any]) -> str:
    if not row["agent_version"]:
        return ""
    return f"{_agent_version(row)}, heard {ago(row['heartbeat_at'])} ago"


def _agent_version(row: dict[str, Any]) -> str:
    return f"{row['agent_version'] or ''}{' (outdated)' if row['agent_outdated'] else ''}"


def _restarts(row: dict[str, Any]) -> str:
    if not row["restart_at"]:
        return str(row["restart_policy"])
    wait, attempt = left(row["restart_at"]), row["restarts"] + 1
    return f"{row['restart_policy']}, starts again in {wait}, attempt {attempt}"


def _boot(boot: dict[str, Any] | None) -> str:
    if not boot:
        return ""
    text = f"{boot['number']}, {when(boot['launched_at'])}"
    if boot["seconds_to_hello"] is not None:
        text += f", hello after {seconds(boot['seconds_to_hello'])}"
    if boot["exit"]:
        text += f", {boot['exit'].get('exit', 'ended')}"
    return text
