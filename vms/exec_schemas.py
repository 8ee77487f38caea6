"""What runs in a VM, as the API takes it, and how it ended."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from ninja import Field, Schema
from pydantic import StringConstraints

from guest_agent.chunks import MAX_SIDE
from guest_agent.exec import MAX_TERM, ExitStatus, Program, Terminal
from nexus_site.core.errors import Invalid
from nexus_site.core.schemas import Input

Encoding = Literal["text", "base64"]
Argument = Annotated[str, StringConstraints(max_length=60_000)]
MAX_SECONDS = 30 * 24 * 3600.0


class TerminalSize(Input):
    """In characters."""

    rows: int = Field(24, ge=1, le=MAX_SIDE)
    cols: int = Field(80, ge=1, le=MAX_SIDE)


class TerminalIn(TerminalSize):
    term: str = Field(
        "xterm-256color", min_length=1, max_length=MAX_TERM, description="The value of TERM."
    )

    def terminal(self) -> Terminal:
        return Terminal(self.rows, self.cols, self.term)


class ProgramIn(Input):
    """A program; together with its variables at most 64 KiB."""

    argv: list[Argument] = Field(
        [], max_length=4096, description="As it is: no shell takes it apart."
    )
    shell: bool = Field(False, description="The user's login shell, at home, in place of argv.")
    env: dict[str, Argument] = Field({}, description="In addition to PATH, HOME, USER, LANG.")
    cwd: str = Field("", max_length=4096, description="Left out: /, and home for a shell.")
    user: str = Field("", max_length=256, description="name, uid, name:group; empty: root.")
    merge: bool = Field(False, description="Put stderr into stdout, in the order of writing.")
    timeout: float | None = Field(
        None, gt=0, le=MAX_SECONDS, description="Seconds after which the guest kills it."
    )
    tty: TerminalIn | None = Field(
        None, description="A terminal, its input and its one output; left out, it has none."
    )

    def program(self, *, stdin: bool) -> Program:
        """Raises ``Invalid`` for what no program can be."""
        return Program(
            argv=self.argv,
            env=self.env,
            cwd=self.cwd,
            user=self.user,
            timeout=self.timeout,
            stdin=stdin,
            merge=self.merge,
            tty=self.tty.terminal() if self.tty else None,
            shell=self.shell,
        )


class ExecIn(ProgramIn):
    stdin: str | None = Field(None, description="All of its input; left out, it has none.")
    stdin_encoding: Encoding = "text"
    output: Encoding = Field(
        "text", description="How stdout and stderr are given; text replaces what is no UTF-8."
    )

    detach: bool = Field(False, description="Start it as a session, which lives on by itself.")

    def stdin_bytes(self) -> bytes | None:
        return None if self.stdin is None else decoded(self.stdin, self.stdin_encoding)


class ExecSocketIn(ProgramIn):
    stdin: bool = Field(False, description="Input will come over the socket.")


class ExitOut(Schema):
    """How a program ended: with ``exit_code`` or by ``signal``; the other one is null."""

    exit_code: int | None
    signal: int | None
    timed_out: bool = Field(..., description="It was killed because its time was over.")
    seconds: float

    @classmethod
    def of(cls, status: ExitStatus, seconds: float) -> ExitOut:
        return cls(
            exit_code=status.code,
            signal=status.signal,
            timed_out=status.timed_out,
            seconds=round(seconds, 4),
        )


class ExecOut(ExitOut):
    stdout: str
    stderr: str
    stdout_truncated: bool = Field(..., description="There was more than 1 MiB; this is its start.")
    stderr_truncated: bool


def decoded(text: str, encoding: str) -> bytes:
    """Input as the API takes it; ``Invalid`` for what is no base64."""
    if encoding == "text":
        return text.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Invalid("The input is not base64.", code="bad-stdin") from None
