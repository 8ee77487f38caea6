"""Sessions, the programs that live on in VMs, as the API takes and gives them."""

from __future__ import annotations

from datetime import UTC, datetime

from ninja import Field, Schema

from guest_agent.chunks import MAX_SIDE, ExitStatus
from guest_agent.exec import Program
from guest_agent.sessions import DEFAULT_KEEP, MAX_KEEP, MAX_OFFSET, MIN_KEEP, SessionState
from nexus_site.core.schemas import Input
from vms.exec_schemas import Encoding, ProgramIn, TerminalIn, decoded

MAX_INPUT = 64 * 1024  # bytes at once
LAST_MOMENT = datetime.max.replace(tzinfo=UTC).timestamp() - 1  # that a date can be


class LookIn(Input):
    """The first message of a session's socket."""

    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="Bytes of output before it.")
    rows: int | None = Field(None, ge=1, le=MAX_SIDE, description="The client's terminal's.")
    cols: int | None = Field(None, ge=1, le=MAX_SIDE)
    start: ProgramIn | None = Field(None, description="Begun where there is no such session.")
    wake: bool = Field(True, description="A VM that has suspended itself is to go on for this.")

    def program(self) -> Program:
        """What is to be started: in a terminal of the client's size."""
        assert self.start is not None
        size = {"rows": self.rows or 24, "cols": self.cols or 80}
        terminal = self.start.tty or TerminalIn.model_validate(size)
        return self.start.model_copy(update={"tty": terminal}).program(stdin=True)


class SessionIn(ProgramIn):
    id: str = Field("", max_length=64, description="Letters, digits, hyphens; else generated.")
    stdin: bool = Field(False, description="It will be given input; a terminal always may.")
    keep_bytes: int = Field(
        DEFAULT_KEEP, ge=MIN_KEEP, le=MAX_KEEP, description="How much of its output is kept."
    )


class HowEnded(Schema):
    """With ``exit_code`` or by ``signal``; the other one is null."""

    exit_code: int | None
    signal: int | None
    timed_out: bool

    @classmethod
    def of(cls, status: ExitStatus | None) -> HowEnded | None:
        if status is None:
            return None
        return cls(exit_code=status.code, signal=status.signal, timed_out=status.timed_out)


class SessionOut(Schema):
    """A program that lives on. Times are the guest's; offsets count bytes of output."""

    id: str
    argv: list[str] = Field(description="Long arguments are cut.")
    pid: int
    user: str
    cwd: str
    tty: bool
    stdin: bool
    started_at: datetime
    ended_at: datetime | None
    exit: HowEnded | None = Field(description="Null while it runs.")
    first_offset: int = Field(description="Of the oldest output that is kept.")
    size: int = Field(description="All output that there ever was, in bytes.")
    keep_bytes: int
    attached: int = Field(description="How many look at it.")

    @classmethod
    def of(cls, state: SessionState) -> SessionOut:
        return cls(
            id=state.id,
            argv=list(state.argv),
            pid=state.pid,
            user=state.user,
            cwd=state.cwd,
            tty=state.tty,
            stdin=state.stdin,
            started_at=_moment(state.started),
            ended_at=None if state.ended is None else _moment(state.ended),
            exit=HowEnded.of(state.exit),
            first_offset=state.first,
            size=state.size,
            keep_bytes=state.keep,
            attached=state.attached,
        )


class OutputQuery(Schema):
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    follow: bool = Field(False, description="Server-sent events until it has ended.")
    encoding: Encoding = Field("text", description="Text replaces what is no UTF-8.")


class SessionOutput(Schema):
    """Output from ``offset`` to ``next_offset`` of ``size``, at most 1 MiB."""

    stdout: str
    stderr: str
    offset: int
    next_offset: int = Field(description="Ask next from here.")
    size: int
    lost: int = Field(description="Bytes since the offset asked for that are not kept any more.")
    exit: HowEnded | None = Field(description="Null while it runs.")


class SignalIn(Input):
    signal: str | int = Field("TERM", description="Such as INT, SIGINT or 2.")


class InputIn(Input):
    data: str = Field("", max_length=4 * MAX_INPUT, description="At most 64 KiB.")
    encoding: Encoding = "text"
    end: bool = Field(False, description="Its input ends after this; ^D in a terminal.")

    def bytes(self) -> bytes:
        return decoded(self.data, self.encoding)


class ForgetQuery(Schema):
    force: bool = Field(False, description="Kill what still runs.")


def _moment(seconds: float) -> datetime:
    """By the guest's clock, which may say anything."""
    return datetime.fromtimestamp(min(seconds, LAST_MOMENT), UTC)
