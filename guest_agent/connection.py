"""The host's side of one agent: its hello, its operations, its streams."""

# ruff: noqa: ASYNC109 - a time that ran out becomes an error for people here, not at each caller

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from guest_agent import replies
from guest_agent.calls import START_TIMEOUT as START_TIMEOUT
from guest_agent.calls import AgentCalls
from guest_agent.exec import Execution, ExitStatus, Program
from guest_agent.fields import MAX_SECONDS, number_field, paths_field
from guest_agent.handshake import shake_hands
from guest_agent.headers import encode_header, read_header
from guest_agent.messages import Configuration, Configured, GuestDisk, Heartbeat, Hello
from guest_agent.refusals import AgentRefused as AgentRefused
from guest_agent.yamux import ProtocolError, Session, Stream, gone
from nexus_site.core.errors import Broken, Invalid, Retryable

HEADER_TIMEOUT = 10.0  # seconds for the header of a stream that the guest has opened


class AgentConnection(AgentCalls[Stream]):
    """One connection to the agent of a VM. Make it with ``open``.

    All its calls raise ``Retryable`` when the connection has ended (code ``agent-gone``) or the
    agent is too slow (``agent-timeout``), and ``Broken`` when the agent refuses
    (``agent-refused``) or breaks the protocol (``agent-protocol``).
    """

    hello: Hello

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._session = Session(reader, writer, self._accept)
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeted = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled_at: float | None = None

    @classmethod
    async def open(
        cls,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        hello_timeout: float | None,
    ) -> AgentConnection:
        """Agree on a beginning, then wait for the agent's hello; None waits for ever.

        Where that fails the transport is closed.
        """
        connection = None
        try:
            async with asyncio.timeout(hello_timeout):
                await shake_hands(reader, writer)
                connection = cls(reader, writer)
                await connection._until(connection._greeted)
            return connection
        except TimeoutError:
            raise replies.too_slow("did not say hello", hello_timeout) from None
        except ProtocolError as error:
            raise replies.broken(error) from error
        except OSError as error:
            raise gone(str(error)) from error
        finally:
            if not (connection and connection._greeted.is_set()):
                writer.transport.abort()

    @property
    def settled_at(self) -> float | None:
        """When init had started its services, in seconds since the kernel's start; None before."""
        return self._settled_at

    async def wait_settled(self) -> float:
        """Returns ``settled_at`` once there is one."""
        await self._until(self._settled)
        assert self._settled_at is not None, "set before the event"
        return self._settled_at

    async def heartbeat(self, timeout: float = 5) -> Heartbeat:
        """How the guest is."""
        reply = await self._call("heartbeat", timeout)
        with self.checking():
            return Heartbeat.parse(reply)

    async def configure(self, configuration: Configuration, timeout: float = 10) -> Configured:
        """Set what a guest is told: its time and random numbers first."""
        reply = await self._call("configure", timeout, **configuration.to_dict())
        with self.checking():
            return Configured.parse(reply)

    async def shutdown(
        self,
        mode: Literal["poweroff", "reboot"] = "poweroff",
        timeout: float = 5,
        *,
        grace: float = 60,
    ) -> None:
        """Begin to end the guest. Returns when the agent has understood; the end comes later.

        The distribution's init has ``grace`` seconds for its own way, then the agent syncs
        the disks and ends the guest itself.
        """
        await self._call("shutdown", timeout, mode=mode, grace=grace)

    async def freeze(self, timeout: float = 30) -> list[str]:
        """Write the guest's file systems out and let every write in the guest wait.

        Returns the mount points that are frozen, at least one. The guest thaws them by itself
        after ``timeout`` seconds (at most 60) or when this connection ends. Until then it
        refuses ``configure``, and programs that write to them hang. Agents that do not know how
        refuse with the reason ``unknown-op``; ``busy`` means frozen already.

        Where this raises ``Retryable`` nobody knows how far the agent came: call ``thaw``.
        """
        reply = await self._call("freeze", timeout, timeout=timeout)
        return self._paths(reply, "frozen")

    async def thaw(self, timeout: float = 10) -> list[str]:
        """Let the writes go on; returns the mount points that were frozen until now.

        None are where the guest has thawed by itself: then what was done since the freeze may
        not have been done under it.
        """
        return self._paths(await self._call("thaw", timeout), "thawed")

    async def load_module(self, name: str, image: bytes, timeout: float = 30) -> None:
        """Put a kernel module, uncompressed, into the guest's kernel; it may be there already."""
        header = {"op": "load", "name": name, "size": len(image)}
        await self.exchange(header, timeout, image)

    async def find_disk(self, serial: str, timeout: float = 10) -> GuestDisk:
        """The guest's SCSI disk with this serial number."""
        return await self._disk(serial, timeout, release=False)

    async def release_disk(self, serial: str, timeout: float = 30) -> GuestDisk:
        """The same, and the guest gives it up: written out and forgotten. Where the answer has
        users nothing has changed."""
        return await self._disk(serial, timeout, release=True)

    async def _disk(self, serial: str, timeout: float, *, release: bool) -> GuestDisk:
        reply = await self._call("disk", timeout, serial=serial, release=release)
        with self.checking():
            return GuestDisk.parse(reply)

    async def execute(
        self,
        argv: Sequence[str],
        *,
        on_output: Callable[[int, bytes], None],
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        stdin: bytes | None = None,
        merge: bool = False,
    ) -> ExitStatus:
        """Run a program to its end; see ``Program`` and ``start``.

        ``on_output`` is given the output as it comes: 1 (stdout) or 2 (stderr), and bytes.
        ``stdin`` is all of its input. Giving up ends the program and its process group.
        """
        program = Program(argv, env, cwd, user, stdin=stdin is not None, merge=merge)
        execution = await self.start(program)
        feeding = asyncio.create_task(_feed(execution, stdin)) if stdin is not None else None
        try:
            while output := await execution.read():
                on_output(*output)
            assert execution.exit is not None, "there is an exit after the last output"
            return execution.exit
        finally:
            execution.close()
            if feeding is not None:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    async def ping(self, timeout: float = 5) -> float:
        """The round trip to the agent and back, in seconds."""
        return await self._session.ping(timeout)

    async def open_stream(self, header: dict[str, Any]) -> Stream:
        """A stream for an operation that goes on after its header. The caller reads the answer
        with ``read_reply`` and must ``reset`` the stream when done with it."""
        try:
            opening = encode_header(header)
        except ValueError as error:
            raise Invalid(f"This is too much for the VM's agent: {error}.") from error
        stream = self._session.open_stream()
        try:
            await stream.write(opening)
        except BaseException:
            stream.reset()
            raise
        return stream

    async def wait_closed(self) -> str:
        """Returns when the connection has ended, with the reason."""
        return await self._session.wait_closed()

    async def close(self) -> None:
        """End the connection."""
        await self._session.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _call(self, operation: str, timeout: float, /, **fields: Any) -> dict[str, Any]:
        return await self.exchange({"op": operation, **fields}, timeout)

    def _paths(self, reply: dict[str, Any], key: str) -> list[str]:
        with self.checking():
            return paths_field(reply, key)

    async def _until(self, event: asyncio.Event) -> None:
        """Wait for the event; ``Retryable`` if the connection ends first."""
        closed = asyncio.create_task(self.wait_closed())
        happened = asyncio.create_task(event.wait())
        try:
            await asyncio.wait({closed, happened}, return_when=asyncio.FIRST_COMPLETED)
            if not event.is_set():
                raise gone(closed.result())
        finally:
            closed.cancel()
            happened.cancel()

    def _end_for(self, error: ProtocolError) -> Broken:
        """The guest broke the protocol: that ends the connection."""
        self._session.fail(f"the agent broke the protocol: {error}")
        return replies.broken(error)

    # Streams that the guest opens.

    def _accept(self, stream: Stream) -> None:
        task = asyncio.create_task(self._listen(stream), name="agent announcement")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, stream: Stream) -> None:
        """Take one announcement of the guest."""
        try:
            async with asyncio.timeout(HEADER_TIMEOUT):
                header = await read_header(stream)
            self._announced(header)
            stream.write_eof()
        except ProtocolError as error:
            self._end_for(error)
        except (TimeoutError, Retryable):
            pass
        finally:
            stream.reset()

    def _announced(self, header: dict[str, Any]) -> None:
        match header.get("op"):
            case "hello" if not self._greeted.is_set():
                self.hello = Hello.parse(header)
                self._settle(self.hello.boot.settled)
                self._greeted.set()
            case "settled" if self._greeted.is_set():
                self._settle(number_field(header, "seconds", MAX_SECONDS))
            case "hello" | "settled":
                raise ProtocolError("it said hello twice, or not first")
            # Announcements of newer agents are let be.

    def _settle(self, seconds: float | None) -> None:
        if seconds is not None and self._settled_at is None:
            self._settled_at = seconds
            self._settled.set()


async def _feed(execution: Execution, data: bytes) -> None:
    await execution.write(data)
    await execution.write_eof()
