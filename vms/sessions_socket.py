"""A look at a session over a websocket: its output from any offset on, input, signals, sizes.

``/ws/vms/<ref>/sessions/<id>``; docs/reference/api.md has the messages. The socket's end is the
look's end, and never the session's.
"""

from __future__ import annotations

from guest_agent.sessions import Attachment
from nexus_site.core.errors import Retryable
from vms import services
from vms.program_socket import ProgramConsumer, greeted
from vms.sessions_schemas import LookIn


class SessionConsumer(ProgramConsumer[Attachment]):
    """One look at one session for each socket."""

    async def open_channel(self, ref: str, greeting: str) -> Attachment:
        wanted = greeted(LookIn, greeting)
        session_id = self.scope["url_route"]["kwargs"]["session_id"]
        vm = await services.reach_vm(ref, wake=wanted.wake)
        self._existing = True
        if wanted.start is not None:
            started = await services.start_session(vm, session_id, wanted.program())
            self._existing = started.existing
        look = await services.look_at_session(vm, session_id, wanted.offset)
        if wanted.rows and wanted.cols:
            await look.resize(wanted.rows, wanted.cols)
        return look

    async def announce(self, channel: Attachment) -> None:
        await self.tell(
            "attached",
            pid=channel.pid,
            offset=channel.offset,
            tty=channel.tty,
            stdin=channel.stdin,
            existing=self._existing,
        )

    async def pass_output(self, channel: Attachment) -> None:
        try:
            while output := await channel.read():
                if output.lost:
                    await self.tell("gap", offset=output.offset)
                await self.send(bytes_data=bytes([output.kind]) + output.data)
        except Retryable as error:
            error.hint = "A session goes on while its VM runs: look again from where you were."
            raise

    async def announce_exit(self, channel: Attachment) -> None:
        ended = channel.exit
        assert ended is not None, "there is an exit after the last output"
        await self.tell("exit", code=ended.code, signal=ended.signal, timed_out=ended.timed_out)
