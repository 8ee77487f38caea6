"""Shows an operation's steps while they run: moving on a terminal, a line a step elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from nexusctl import output
from nexusctl.formatting import moment, seconds

if TYPE_CHECKING:
    from rich.table import Table

Operation = dict[str, Any]
Step = dict[str, Any]

MARKS = {
    "done": ("✓", "green"),
    "skipped": ("↷", "cyan"),
    "failed": ("✗", "red"),
    "undone": ("↶", "yellow"),
    "pending": ("·", "white"),
}
OVER = {"done", "skipped", "failed", "undone"}


class Progress(Protocol):
    """Shows an operation each time it is given its newest state."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, operation: Operation) -> None: ...


def progress(*, quiet: bool) -> Progress:
    """The way to show progress here: not at all, live, or in plain lines."""
    if quiet:
        return Silence()
    return Live() if output.is_terminal() else Lines()


def steps_of(operation: Operation) -> Iterator[tuple[int, str, Step]]:
    """Its steps in order: depth, the ID of the operation they belong to, the step.

    The steps of an operation that a step runs follow it, one deeper.
    """
    for step in operation["steps"]:
        yield 0, operation["id"], step
        for child in operation["children"]:
            if _opened_in(child, step):
                yield from ((1, child["id"], each) for each in child["steps"])


def describe(step: Step) -> str:
    """``Make the drive: hello, 8 GiB (0.4 s)``."""
    text = str(step["title"])
    if step["note"]:
        text += f": {step['note']}"
    if step["state"] == "undone":
        text += " (undone)"
    elif step["seconds"] is not None and step["state"] == "done":
        text += f" ({seconds(step['seconds'])})"
    return text


class Silence:
    """For ``--json``: the operation itself is the answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, operation: Operation) -> None:
        pass


class Lines(Silence):
    """A line on stderr for each step when it is over."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, str, str]] = set()

    def show(self, operation: Operation) -> None:
        for depth, owner, step in steps_of(operation):
            key = (owner, step["name"], step["state"])
            if step["state"] in OVER and key not in self._shown:
                self._shown.add(key)
                mark, colour = MARKS[step["state"]]
                output.note(f"{'  ' * depth}{output.style(mark, fg=colour)} {describe(step)}")


class Live(Silence):
    """All steps at once on stderr, redrawn as they move."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live as Screen
        from rich.spinner import Spinner

        no_colour = bool(os.environ.get("NO_COLOR"))
        console = Console(stderr=True, no_color=no_colour, highlight=False)
        self._screen = Screen(console=console, refresh_per_second=12)
        self._spinner = Spinner("dots", style="blue")

    def __enter__(self) -> Self:
        self._screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._screen.stop()

    def show(self, operation: Operation) -> None:
        self._screen.update(self._drawn(operation))

    def _drawn(self, operation: Operation) -> Table:
        from rich.padding import Padding
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 1))
        for depth, _, step in steps_of(operation):
            mark, colour = MARKS.get(step["state"], ("", ""))
            sign = Text(mark, style=colour) if mark else self._spinner
            running = step["state"] == "running" and 0 < step["progress"] < 1
            grid.add_row(
                Padding(sign, (0, 0, 0, 2 * depth)),
                Text(describe(step), style="dim" if step["state"] == "pending" else ""),
                ProgressBar(total=1.0, completed=step["progress"], width=20) if running else "",
            )
        return grid


def _opened_in(child: Operation, step: Step) -> bool:
    if step["started_at"] is None:
        return False
    opened = moment(child["created_at"])
    after_its_end = step["ended_at"] is not None and opened > moment(step["ended_at"])
    return moment(step["started_at"]) <= opened and not after_its_end
