"""Programs in the guest that live on without the host.

A session is named by the host, so that a host that crashed finds it again. The agent keeps the
end of its output; offsets count all bytes that it ever wrote.
"""

# ruff: noqa: ASYNC109 - a time that ran out becomes an error for people here, not at each caller

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from guest_agent.calls import START_TIMEOUT, AgentCalls
from guest_agent.chunks import OUTPUTS, Channel, ExitStatus, Kind, check_signal
from guest_agent.exec import Program
from guest_agent.fields import MAX_BYTES, MAX_PATH, MAX_SECONDS, number_field, text_field
from guest_agent.refusals import AgentRefused, explained, start_meaning
from guest_agent.replies import MAX_PID
from guest_agent.streams import ByteStream
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Conflict

DEFAULT_KEEP = 1024 * 1024  # bytes of output
MIN_KEEP, MAX_KEEP = 4096, 8 * 1024 * 1024
MAX_SESSIONS = 64
MAX_ARGUMENTS = 1000
MAX_ARGUMENT = 1000  # characters of one that are told
MAX_OFFSET = 2**53


@dataclass(frozen=True, slots=True)
class Started:
    """What has begun; ``existing`` where a session of this name was there before."""

    pid: int
    tty: bool
    existing: bool


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as the agent tells it: epoch seconds, offsets in bytes."""

    id: str
    argv: tuple[str, ...]  # fit to be shown, cut where it is long
    pid: int
    user: str
    cwd: str
    tty: bool
    stdin: bool
    started: float
    keep: int
    first: int  # the oldest byte that is kept
    size: int  # the next byte
    attached: int
    exit: ExitStatus | None = None
    ended: float | None = None

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> SessionState:
        """The checked state; ``ProtocolError`` for one that cannot be."""
        argv = fields.get("argv")
        if not isinstance(argv, list):
            raise ProtocolError("argv is not a list")
        first, size = (int(number_field(fields, key, MAX_BYTES)) for key in ("first", "size"))
        if first > size:
            raise ProtocolError("it keeps more output than there is")
        over = fields.get("exit") is not None
        return cls(
            id=text_field(fields, "id"),
            argv=tuple(
                text_field({"argv": word}, "argv", MAX_ARGUMENT) for word in argv[:MAX_ARGUMENTS]
            ),
            pid=int(number_field(fields, "pid", MAX_PID)),
            user=text_field(fields, "user"),
            cwd=text_field(fields, "cwd", MAX_PATH),
            tty=fields.get("tty") is True,
            stdin=fields.get("stdin") is True,
            started=number_field(fields, "started", MAX_SECONDS),
            keep=int(number_field(fields, "keep", MAX_BYTES)),
            first=first,
            size=size,
            attached=int(number_field(fields, "attached", MAX_SESSIONS)),
            exit=ExitStatus.of(fields["exit"]) if over else None,
            ended=number_field(fields, "ended", MAX_SECONDS) if over else None,
        )


@dataclass(frozen=True, slots=True)
class Output:
    """Some output: of stdout (1) or stderr (2), from ``offset`` on.

    ``lost`` bytes before it are not kept any more.
    """

    kind: int
    offset: int
    data: bytes
    lost: int = 0


class Attachment(Channel):
    """A look at a session; ``close`` ends the look, not the session.

    ``offset`` is where the next output lies.
    """

    guest_kinds = (*OUTPUTS, Kind.EXIT, Kind.WINDOW, Kind.GAP)

    def __init__(
        self, stream: ByteStream, pid: int, offset: int, *, tty: bool, stdin: bool
    ) -> None:
        super().__init__(stream, pid, tty=tty)
        self.offset = offset
        self.stdin = stdin
        self._lost = 0

    async def read(self) -> Output | None:
        """The next output as soon as there is some; None after the last one, with ``exit`` set.

        Raises ``Retryable`` when the guest or the session is lost, and ``Broken`` when the guest
        breaks the protocol.
        """
        if (output := await self._next_output()) is None:
            return None
        kind, data = output
        read = Output(kind, self.offset, data, self._lost)
        self.offset, self._lost = self.offset + len(data), 0
        return read

    async def write(self, data: bytes) -> None:
        """Type; ``Conflict`` for a session that takes no input."""
        if not self.stdin:
            raise Conflict("This session takes no input.", code="no-input")
        await super().write(data)

    async def write_eof(self) -> None:
        """The end of the session's input, for all who look at it."""
        if self.stdin:
            await super().write_eof()

    def _note(self, kind: Kind, data: bytes) -> None:
        if kind is Kind.GAP:
            self._skip(data)
        else:
            super()._note(kind, data)

    def _skip(self, data: bytes) -> None:
        offset = int.from_bytes(data)
        if len(data) != 8 or not self.offset < offset <= MAX_BYTES:
            raise ProtocolError("it skipped output that cannot be skipped")
        self._lost += offset - self.offset
        self.offset = offset


class Sessions:
    """The sessions of one VM, over its connection or the gateway.

    All calls raise what ``AgentCalls`` do, and ``Conflict`` (code ``agent-outdated``)
    where the agent knows no sessions.
    """

    def __init__(self, connection: AgentCalls[Any]) -> None:
        self._connection = connection

    async def start(
        self,
        session_id: str,
        program: Program,
        *,
        keep: int = DEFAULT_KEEP,
        timeout: float = START_TIMEOUT,
    ) -> Started:
        """Start a program that lives on by itself.

        ``session_id`` is 1 to 64 letters, digits and ``-``. Where there is such a session, nothing
        is started: it is that one. ``keep`` is how many bytes of its output the agent keeps, 4096
        to 8388608. Raises ``Invalid`` (``cannot-run``) and ``Retryable`` (``agent-busy``).
        """
        header = program.header("start") | {"id": session_id, "keep": keep}
        try:
            reply = await self._connection.exchange(header, timeout)
        except AgentRefused as refused:
            raise start_meaning(refused) from refused
        with self._connection.checking():
            pid = int(number_field(reply, "pid", MAX_PID))
        return Started(pid, reply.get("tty") is True, reply.get("existing") is True)

    async def attach(self, session_id: str, offset: int = 0, timeout: float = 10) -> Attachment:
        """Look at a session's output from ``offset`` on, or from the oldest byte that is kept.

        ``NotFound`` where there is no such session; ``Retryable`` when too many look at it.
        """
        header = {"op": "attach", "id": session_id, "offset": min(offset, MAX_OFFSET)}
        with explained():
            stream, reply = await self._connection.ask(header, timeout)
        try:
            with self._connection.checking():
                return Attachment(
                    stream,
                    int(number_field(reply, "pid", MAX_PID)),
                    int(number_field(reply, "offset", MAX_BYTES)),
                    tty=reply.get("tty") is True,
                    stdin=reply.get("stdin") is True,
                )
        except BaseException:
            stream.reset()
            raise

    async def list(self, timeout: float = 10) -> list[SessionState]:
        """All that run, and those that have ended and are not forgotten; the oldest first."""
        with explained():
            _, records = await self._connection.records({"op": "sessions"}, MAX_SESSIONS, timeout)
        with self._connection.checking():
            return [SessionState.parse(record) for record in records]

    async def signal(self, session_id: str, number: int, timeout: float = 10) -> None:
        """Send a signal to a session's process group, and to its terminal's foreground."""
        header = {"op": "signal", "id": session_id, "signal": check_signal(number)}
        with explained():
            await self._connection.exchange(header, timeout)

    async def forget(self, session_id: str, timeout: float = 10) -> None:
        """Give up what is kept of a session that has ended; ``Retryable`` while it runs."""
        with explained():
            await self._connection.exchange({"op": "forget", "id": session_id}, timeout)
