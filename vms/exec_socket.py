"""A program in a VM over a websocket: input, signals and output while it runs.

``/ws/vms/<ref>/exec``; docs/reference/api.md has the messages.
"""

from __future__ import annotations

import time

from guest_agent.exec import Execution
from vms import services
from vms.exec_schemas import ExecSocketIn, ExitOut
from vms.program_socket import ProgramConsumer, greeted


class ExecConsumer(ProgramConsumer[Execution]):
    """One program for each socket; whoever closes it ends the program and its process group."""

    async def open_channel(self, ref: str, greeting: str) -> Execution:
        wanted = greeted(ExecSocketIn, greeting)
        self._began = time.monotonic()
        program = wanted.program(stdin=wanted.stdin)
        vm = await services.reach_vm(ref)
        return await services.start_program(vm, program)

    async def announce(self, channel: Execution) -> None:
        await self.tell("started", pid=channel.pid)

    async def pass_output(self, channel: Execution) -> None:
        while output := await channel.read():
            await self.send(bytes_data=bytes([output[0]]) + output[1])

    async def announce_exit(self, channel: Execution) -> None:
        assert channel.exit is not None, "there is an exit after the last output"
        ended = ExitOut.of(channel.exit, time.monotonic() - self._began)
        await self.tell("exit", **ended.model_dump())
