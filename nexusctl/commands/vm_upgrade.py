"""nexusctl vm agent-upgrade …"""

from __future__ import annotations

import click

from nexusctl import output
from nexusctl.app import App, Command, Work, pass_app, work_options


@click.command("agent-upgrade", cls=Command)
@click.argument("vm", metavar="VM", required=False)
@click.option("--all-outdated", is_flag=True, help="Of every ready VM whose agent is outdated.")
@work_options
@pass_app
def agent_upgrade(app: App, vm: str | None, all_outdated: bool, work: Work) -> None:
    """Put the server's agent in the place of a running VM's.

    The guest goes on meanwhile, and so do sessions; programs of `vm exec` must have ended.
    """
    if (vm is None) == (not all_outdated):
        raise click.UsageError("Name a VM, or say --all-outdated.")
    names = [vm] if vm else _outdated(app)
    if not names:
        output.note("No ready VM has an outdated agent.")
    for name in names:
        app.change("POST", f"/vms/{name}/agent-upgrade", work)


def _outdated(app: App) -> list[str]:
    rows = app.client.pages("/vms", state="ready")
    return [row["name"] for row in rows if row["agent_outdated"]]
