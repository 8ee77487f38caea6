"""nexusctl vm metrics …, nexusctl vm top"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import click

from nexusctl import formatting, output
from nexusctl.app import App, Command, pass_app
from nexusctl.formatting import NOTHING, size

Row = dict[str, Any]
Value = float | None

WIDTH = 40  # characters of a sparkline
LEVELS = "▁▂▃▄▅▆▇█"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
CLEAR = "\x1b[H\x1b[J"  # to the top, and away with all below


def percent(value: Value) -> str:
    return NOTHING if value is None else f"{value * 100:.0f} %"


def count(value: Value) -> str:
    return NOTHING if value is None else size(round(value))


def rate(value: Value) -> str:
    return NOTHING if value is None else f"{count(value)}/s"


#: What is shown of a VM's past: the API's column, its name, how its numbers are written.
COLUMNS: tuple[tuple[str, str, Callable[[Value], str]], ...] = (
    ("cpu", "CPU", percent),
    ("memory_used", "memory", count),
    ("disk_read", "disk read", rate),
    ("disk_write", "disk written", rate),
    ("net_rx", "received", rate),
    ("net_tx", "sent", rate),
    ("vmm_cpu", "VMM CPU", percent),
    ("vmm_memory", "VMM memory", count),
)
#: What `top` may be sorted by, largest first; nothing known comes last.
ORDERS: dict[str, Callable[[Row], float]] = {
    "cpu": lambda usage: usage["cpu"],
    "memory": lambda usage: usage["memory_used"],
    "disk": lambda usage: usage["disk_read"] + usage["disk_write"],
    "network": lambda usage: usage["net_rx"] + usage["net_tx"],
    "vmm": lambda usage: usage["vmm_cpu"],
}


class Span(click.ParamType[timedelta]):
    """A time such as ``90s``, ``15m``, ``1h`` or ``2d``."""

    name = "span"

    def convert(self, value: Any, param: Any, context: Any) -> timedelta:
        found = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if not found or not int(found[1]):
            self.fail(f"“{value}” is no time such as 90s, 15m, 1h or 2d.", param, context)
        return timedelta(seconds=int(found[1]) * UNITS[found[2]])


@click.command(cls=Command)
@click.option(
    "--since", type=Span(), default="1h", show_default=True, help="How far back: 15m, 6h, 2d."
)
@click.argument("vm", metavar="VM")
@pass_app
def metrics(app: App, vm: str, since: timedelta) -> None:
    """Show what a VM used: now, on average, at most, and in between."""
    start = (formatting.now() - since).isoformat()
    app.answer(app.client.get(f"/vms/{vm}/metrics", **{"from": start, "points": WIDTH}), show)


def show(answer: Row) -> None:
    if not answer["at"]:
        output.note("Nothing was measured in this time.")
        return
    rows = [
        [label, *_short(answer["summary"][name], words), sparkline(answer[name])]
        for name, label, words in COLUMNS
    ]
    output.table(("", "NOW", "AVERAGE", "MOST", ""), rows, empty="")
    for move in answer["transitions"]:
        output.note(f"{formatting.when(move['at'])}  {move['from_state']} → {move['to_state']}")


def _short(summary: Row, words: Callable[[Value], str]) -> list[str]:
    return [words(summary[kind]) for kind in ("now", "avg", "max")]


def sparkline(values: Sequence[Value]) -> str:
    """A bar for each value, the largest full; a space where nothing is known."""
    top = max((value for value in values if value is not None), default=0)
    highest = len(LEVELS) - 1
    return "".join(
        " " if value is None else LEVELS[round(value / top * highest) if top else 0]
        for value in values
    )


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Print it once and end.")
@click.option(
    "--interval", type=click.FloatRange(0.5), default=2, show_default=True, help="Seconds."
)
@click.option(
    "--sort",
    type=click.Choice(["name", *ORDERS]),
    default="cpu",
    show_default=True,
    help="What comes first.",
)
@pass_app
def top(app: App, once: bool, interval: float, sort: str) -> None:
    """Show what every VM that runs uses now, again and again until Ctrl-C."""
    live = output.is_terminal(sys.stdout) and not once and not app.json
    try:
        while True:
            rows = _sorted(list(app.client.pages("/metrics/vms")), sort)
            if live:
                click.echo(CLEAR, nl=False)
            app.answer(rows, show_top)
            if not live:
                return
            time.sleep(interval)
    except KeyboardInterrupt:
        return


def _sorted(rows: list[Row], sort: str) -> list[Row]:
    if sort == "name":
        return sorted(rows, key=lambda row: str(row["name"]))
    return sorted(rows, key=lambda row: (-_weight(row["usage"], sort), row["name"]))


def _weight(usage: Row | None, sort: str) -> float:
    try:
        return ORDERS[sort](usage or {})
    except (KeyError, TypeError):  # some of it is not known
        return -1


def show_top(rows: list[Row]) -> None:
    headings = ("NAME", "STATE", "CPU", "MEMORY", "", "READ", "WRITTEN", "IN", "OUT", "VMM CPU")
    output.table((*headings, "VMM MEM"), map(_top_row, rows), empty="No VM runs.")


def _top_row(row: Row) -> list[str]:
    usage = row["usage"] or dict.fromkeys(name for name, _, _ in COLUMNS)
    used, whole = usage["memory_used"], usage.get("memory_total")
    return [
        row["name"],
        output.state(row["state"]),
        percent(usage["cpu"]),
        count(used),
        percent(used / whole) if used is not None and whole else NOTHING,
        *(rate(usage[name]) for name in ("disk_read", "disk_write", "net_rx", "net_tx")),
        percent(usage["vmm_cpu"]),
        count(usage["vmm_memory"]),
    ]


COMMANDS = (metrics, top)
