"""nexusctl vm forward …"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from nexusctl import output
from nexusctl.app import App, Command, pass_app

if TYPE_CHECKING:
    from nexusctl.forwarding import Forward, Wish

MAX_PORT = 65535


class Ports(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    """``[LOCAL:]PORT``."""

    name = "ports"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Wish:
        from nexusctl.forwarding import Wish

        local, _, port = value.rpartition(":")
        try:
            wish = Wish(int(local or port), int(port))
        except ValueError:
            self.fail(f"“{value}” is no port, and no LOCAL:PORT.", param, ctx)
        if not (0 <= wish.local <= MAX_PORT and 1 <= wish.port <= MAX_PORT):
            self.fail(f"“{value}”: ports are 1 to {MAX_PORT}, and LOCAL may be 0.", param, ctx)
        return wish


def _address(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise click.BadParameter(f"“{value}” is no IP address.") from None


@click.command(cls=Command)
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    callback=_address,
    help="The address of this machine to listen on.",
)
@click.argument("vm", metavar="VM")
@click.argument("wishes", metavar="[LOCAL:]PORT…", type=Ports(), nargs=-1, required=True)
@pass_app
def forward(app: App, vm: str, address: str, wishes: tuple[Wish, ...]) -> None:
    """Reach ports of a VM on ports of this machine, until Ctrl-C.

    Whatever connects to LOCAL (left out, the same number; 0, any that is free) is connected to
    PORT inside the VM: to its localhost, so it needs no network. A VM that has suspended itself
    wakes for it, and does not do so again while a connection is open.
    """
    from nexusctl import forwarding

    app.client.get(f"/vms/{vm}")
    if not ip_address(address).is_loopback:
        output.note(f"Whoever reaches {address} reaches these ports of “{vm}”, without a token.")
    with forwarding.listening(address, wishes) as forwards:
        try:
            _show(app, vm, forwards)
            forwarding.forward(app.client, vm, forwards)
        except KeyboardInterrupt:
            output.note("")  # after the terminal's ^C


def _show(app: App, vm: str, forwards: list[Forward]) -> None:
    if app.json:
        output.as_json([{"local": way.address, "port": way.port} for way in forwards])
        return
    for way in forwards:
        output.data(f"{way.address} → {vm}:{way.port}")
    output.note("Ctrl-C ends it.")
