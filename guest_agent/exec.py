"""Programs in the guest: what the host asks for, and one that runs for as long as it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from guest_agent.chunks import MAX_SIDE, Channel, ExitStatus
from nexus_site.core.errors import Invalid

__all__ = ["Execution", "ExitStatus", "Program", "Terminal"]

MAX_TERM = 64


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal for a program, in characters; ``term`` is its kind, the value of ``TERM``."""

    rows: int = 24
    cols: int = 80
    term: str = "xterm-256color"

    def __post_init__(self) -> None:
        sizes = 0 <= self.rows <= MAX_SIDE and 0 <= self.cols <= MAX_SIDE
        if not sizes or not self.term.isprintable() or not 0 < len(self.term) <= MAX_TERM:
            raise Invalid("There is no such terminal.", code="bad-terminal")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: ``argv`` as it is, without a shell.

    ``env`` is added to the agent's defaults (PATH, HOME, LANG, USER, LOGNAME) and to the VM's own
    variables. ``user`` is a name or number, with ``:group`` if wanted; "" is the agent's own,
    root. ``timeout`` in seconds is kept by the guest: the program is killed then. ``stdin`` opens
    its input, which is empty otherwise. ``merge`` puts stderr into stdout, in the order of
    writing. ``tty`` gives it a terminal, which is its input and its one output. ``shell`` takes
    the user's login shell, at home, in the place of ``argv``.
    """

    argv: Sequence[str] = ()
    env: Mapping[str, str] | None = None
    cwd: str = ""
    user: str = ""
    timeout: float | None = None
    stdin: bool = False
    merge: bool = False
    tty: Terminal | None = None
    shell: bool = False

    def __post_init__(self) -> None:
        if bool(self.argv and self.argv[0]) == self.shell:
            raise Invalid("There must be a program to run, or a shell.", code="bad-program")
        if any("\0" in text for text in (*self.argv, *(self.env or {}).values(), self.cwd)):
            raise Invalid("A program cannot be given a null character.", code="bad-program")
        for name in self.env or {}:
            if not name or "=" in name or "\0" in name:
                raise Invalid(f"“{name}” cannot be an environment variable.", code="bad-variable")
        if self.cwd and not self.cwd.startswith("/"):
            raise Invalid("A program's directory must be an absolute path.", code="bad-program")

    def header(self, operation: str = "exec") -> dict[str, Any]:
        """The header of the stream that asks for it."""
        return {
            "op": operation,
            "argv": list(self.argv),
            "env": dict(self.env or {}),
            "cwd": self.cwd,
            "user": self.user,
            "timeout": self.timeout,
            "stdin": self.stdin,
            "merge": self.merge,
            "tty": asdict(self.tty) if self.tty else None,
            "shell": self.shell,
        }


class Execution(Channel):
    """A program that runs in the guest; ``AgentConnection.start`` makes one.

    ``close`` ends what still runs: the process group is killed if the program has not ended.
    """

    async def read(self) -> tuple[int, bytes] | None:
        """The next output, (1 for stdout or 2 for stderr, bytes); None after the last one.

        ``exit`` is set then. Raises ``Retryable`` when the guest is lost and ``Broken`` when it
        breaks the protocol.
        """
        return await self._next_output()
