"""nexusctl kernel …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, pass_app
from nexusctl.formatting import size


@click.group(cls=Group)
def kernel() -> None:
    """Kernels that VMs start."""


@kernel.command("list")
@pass_app
def list_kernels(app: App) -> None:
    """List kernels."""
    app.items("/kernels", show_kernels)


def show_kernels(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "VERSION", "ARCH", "SIZE", "DEFAULT"],
        [
            [
                row["name"],
                row["id"],
                row["version"],
                row["arch"],
                size(row["size_bytes"]),
                "yes" if row["is_default"] else "no",
            ]
            for row in rows
        ],
        empty="No kernels yet; the first start of a VM unpacks one.",
    )
