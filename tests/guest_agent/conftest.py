"""The real agent as an ordinary process, and the pipe that a VM would put before it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from guest_agent import transports
from guest_agent.build import build
from guest_agent.connection import AgentConnection

PATIENCE = 60.0  # seconds; only a hang takes as long

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_locks = itertools.count()


async def eventually(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; a ``TimeoutError`` where it never does."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - conditions of the world have no event
            await asyncio.sleep(0.01)


async def socket_ends(sock: socket.socket) -> Ends:
    return await asyncio.open_unix_connection(sock=sock)


class Port:
    """A virtio-serial port in small: a pipe that outlives the hosts at its one end.

    Bytes that a host has left unread wait for the next host, and the agent sees no end of file
    when one host takes the other's place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.agent: Ends | None = None
        self.dialled = asyncio.Event()  # once
        self.dials = 0
        self._host: Ends | None = None
        self._attached = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._server = await transports.listen(self.path, self._agent_came)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for ends in (self.agent, self._host):
            if ends:
                ends[1].transport.abort()

    async def attach(self) -> Ends:
        """A new host takes the place of the old one."""
        if self._host:
            self._host[1].transport.abort()
        ours, theirs = socket.socketpair()
        self._host = await socket_ends(ours)
        self._attached.set()
        self._spawn(self._pump_to_agent(self._host[0]))
        return await socket_ends(theirs)

    def _agent_came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.agent:
            self.agent[1].transport.abort()
        self.agent = reader, writer
        self.dials += 1
        self.dialled.set()
        self._spawn(self._pump_to_host(reader))

    async def _pump_to_host(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                await self._attached.wait()
                assert self._host
                with contextlib.suppress(OSError):  # lost with the host that has left
                    self._host[1].write(data)
                    await self._host[1].drain()

    async def _pump_to_agent(self, host: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await host.read(4096):
                await self.dialled.wait()
                assert self.agent
                with contextlib.suppress(OSError):
                    self.agent[1].write(data)
                    await self.agent[1].drain()


def started_by(pid: int) -> list[int]:
    """The children of a process, each the leader of its group."""
    lists = [file.read_text().split() for file in Path("/proc").glob(f"{pid}/task/*/children")]
    return [int(child) for children in lists for child in children]


class AgentProcess:
    """``nexus-agent`` in a sandbox, dialling a Unix socket."""

    def __init__(self, binary: Path, directory: Path, lock: str = "") -> None:
        self.binary, self.sandbox = binary, directory / "sandbox"
        self.socket = directory / "agent.sock"
        self.lock = lock or f"@nexus-agent-test-{os.getpid()}-{next(_locks)}"
        self.sandbox.mkdir(exist_ok=True)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: str = "agent", init: str = "none") -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *(self.binary, command),
                *("--dial", f"unix:{self.socket}", "--sandbox", self.sandbox),
                *("--lock", self.lock, "--init", init),
            ],
            stderr=subprocess.DEVNULL,
        )
        self._processes.append(process)
        return process

    def stop(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                children = started_by(process.pid)
                process.kill()
                for child in children:  # sessions outlive their agent
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(child, signal.SIGKILL)
            process.wait()

    def write(self, path: str, text: str) -> None:
        file = self.sandbox / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def read(self, path: str) -> str:
        return (self.sandbox / path).read_text()

    def calls(self) -> list[str]:
        """What the agent would have done to the kernel."""
        return self.read("calls").splitlines() if (self.sandbox / "calls").exists() else []


@pytest.fixture(scope="session")
def agent_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent, compiled from the source as it is."""
    return build(directory=tmp_path_factory.mktemp("agent"))


@pytest.fixture
def agent(agent_binary: Path, tmp_path: Path) -> Iterator[AgentProcess]:
    process = AgentProcess(agent_binary, tmp_path)
    yield process
    process.stop()


@pytest.fixture
async def port(agent: AgentProcess) -> AsyncIterator[Port]:
    """A port whose other end the agent dials."""
    pipe = Port(agent.socket)
    await pipe.start()
    yield pipe
    await pipe.stop()


Open = Callable[[Ends], Awaitable[AgentConnection]]


@pytest.fixture
async def connect(port: Port) -> AsyncIterator[Callable[[], Awaitable[AgentConnection]]]:
    """Connects a host to the agent; each call in the place of the one before."""
    opened: list[AgentConnection] = []

    async def connect() -> AgentConnection:
        opened.append(await AgentConnection.open(*await port.attach(), hello_timeout=PATIENCE))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()
