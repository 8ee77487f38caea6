"""The VM in which a build runs its packages and commands.

It is no VM of anybody's: it has no row, its directory is the build's, and the thread that builds
waits for everything itself. The VMM is started and ended as any other's; see ``vms.hypervisors``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings

from builds.machines import MachineSpec
from guest_agent import transports
from guest_agent.connection import AgentConnection
from guest_agent.exec import Execution, Program
from guest_agent.messages import Configuration, Network
from images import services as image_services
from images.formats.disks import RawDisk
from images.formats.ext4_reader import Ext4
from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError, Retryable
from vms.console import PANIC
from vms.drivers import QEMU, driver_for
from vms.hypervisors import monitored
from vms.hypervisors.base import AgentSocket, Disk, Exit, Handle, Hypervisor, VmmSpec
from vms.paths import CONSOLE

T = TypeVar("T")
Check = Callable[[], None]

HOSTNAME = "nexus-build"
MAC = "52:54:00:6e:78:00"  # each VM is alone in its network
CHECK_EVERY = 1.0  # seconds between two looks at whether the build is still wanted
REDIAL = 0.25
POLL = 0.05
END_TIMEOUT = 2.0  # seconds from the end of the agent's connection to that of the VMM
AGENT_TIMEOUT = 60.0  # seconds for what the agent does at once, on a busy host


class BuildMachines:
    """Provides ``builds.machines`` with VMs. QEMU runs them: it gives anyone a network."""

    @contextmanager
    def boot(
        self, spec: MachineSpec, *, check: Check, note: Callable[[str], None]
    ) -> Iterator[BuildMachine]:
        """A VM for the block; see ``builds.machines.MachineProvider``."""
        driver = driver_for(QEMU)
        self.discard(spec.directory)
        spec.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        wanted = _vmm_spec(spec)
        note("launching the build VM")
        handle = driver.launch(wanted)
        try:
            with asyncio.Runner() as runner:
                machine = BuildMachine(driver, handle, runner, check)
                try:
                    note(f"waiting for the build VM's agent ({handle.accelerator})")
                    machine.meet()
                    yield machine
                    note("shutting the build VM down")
                    machine.shut_down()
                finally:
                    machine.hang_up()
            _require_clean(spec.disk, spec.directory)
        finally:
            driver.kill(handle)
            driver.cleanup(spec.directory)

    def discard(self, directory: Path) -> None:
        """End what runs in ``directory``; see ``builds.machines.MachineProvider``."""
        driver = driver_for(QEMU)
        found = driver.adopt(directory)
        if isinstance(found, Handle):
            driver.kill(found)
        if found is not None:
            driver.cleanup(directory)


class BuildMachine:
    """A running build VM, for one thread.

    Its agent's connection lives in an event loop that runs only while this thread waits, a
    second at a time: between, in no loop's way, ``check`` and the build's log do their work.
    """

    def __init__(
        self, driver: Hypervisor, handle: Handle, runner: asyncio.Runner, check: Check
    ) -> None:
        self._driver, self._handle = driver, handle
        self._runner, self._check = runner, check
        self._agent: AgentConnection | None = None
        self._checked = time.monotonic()

    def greet(self) -> None:
        """Wait for the agent's hello."""
        patience = settings.NEXUS.agent_ready_timeout
        socket = self._driver.agent_socket(self._handle.vm_dir)
        self._agent = self._wait(_dial(socket), patience, "did not call")

    def meet(self) -> None:
        """Wait for the agent, then tell it the time and the network."""
        self.greet()
        assert self._agent is not None, "greeted"
        wanted = Configuration(hostname=HOSTNAME, time=time.time(), network=Network())
        self._wait(self._agent.configure(wanted, AGENT_TIMEOUT), 2 * AGENT_TIMEOUT, "hangs")

    def execute(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        output: Callable[[bytes], None],
        timeout: float,
    ) -> int:
        """Run a program to its end; see ``builds.machines.Machine``."""
        assert self._agent is not None, "met before"
        deadline = time.monotonic() + timeout
        program = Program(argv, env, cwd, merge=True)
        try:
            execution = self._wait(self._agent.start(program), AGENT_TIMEOUT, "hangs")
        except Invalid as error:
            raise Broken(error.text, code=error.code) from error
        try:
            while piece := self._next_output(execution, deadline):
                output(piece)
        except TimeoutError:
            raise Conflict(
                f"“{argv[0]}” did not end within {timeout:g} s; it was killed.", code="timeout"
            ) from None
        finally:
            self._let(execution)
        assert execution.exit is not None, "known after the last output"
        return execution.exit.shell_code

    def shut_down(self) -> None:
        """Let the agent write the disk out and end the VM."""
        assert self._agent is not None, "met before"
        asking = self._agent.shutdown("poweroff", AGENT_TIMEOUT)
        self._wait(asking, 2 * AGENT_TIMEOUT, "does not shut down")
        deadline = time.monotonic() + settings.NEXUS.shutdown_timeout + AGENT_TIMEOUT
        while not (ended := self._ended()):
            self._look()
            if time.monotonic() > deadline:
                raise self._lost("did not end when it was shut down")
            time.sleep(POLL)
        if ended.code != 0:
            raise self._lost(f"did not end well: its VMM {ended.describe()}")

    def hang_up(self) -> None:
        """Close the connection."""
        if self._agent is not None:
            self._runner.run(self._agent.close())

    def _next_output(self, execution: Execution, deadline: float) -> bytes:
        """The next output, at last nothing; ``TimeoutError`` at the deadline."""
        output = self._until(execution.read(), deadline)
        return output[1] if output else b""

    def _let(self, execution: Execution) -> None:
        """Be done with a program; the agent hears of it before anything else is asked."""

        async def close() -> None:
            execution.close()
            await asyncio.sleep(0)

        self._runner.run(close())

    def _wait(self, call: Coroutine[Any, Any, T], seconds: float, what: str) -> T:
        try:
            return self._until(call, time.monotonic() + seconds)
        except TimeoutError:
            raise self._lost(f"{what} within {seconds:g} s") from None

    def _until(self, call: Coroutine[Any, Any, T], deadline: float) -> T:
        """What ``call`` returns, with ``check`` called every second; it is cancelled if that or
        the deadline (``TimeoutError``) comes first. ``Broken`` when the VM or its agent is lost."""
        task = self._runner.get_loop().create_task(call)
        try:
            while not task.done():
                self._runner.run(_pause(task, min(CHECK_EVERY, deadline - time.monotonic())))
                if self._look() and self._ended():
                    raise self._lost("ended by itself")
                if not task.done() and time.monotonic() >= deadline:
                    raise TimeoutError
            return task.result()
        except Retryable as error:
            if error.code not in ("agent-gone", "agent-reset", "agent-short", "agent-timeout"):
                raise
            ended = monitored.wait(self._handle, END_TIMEOUT)
            what = "ended by itself" if ended else f"was lost: {error.text.rstrip('.')}"
            raise self._lost(what) from error
        finally:
            if not task.done():
                task.cancel()
                self._runner.run(_pause(task, AGENT_TIMEOUT))

    def _look(self) -> bool:
        """Once a second: is the build still wanted? True when that second is over."""
        if time.monotonic() - self._checked < CHECK_EVERY:
            return False
        self._check()
        self._checked = time.monotonic()
        return True

    def _ended(self) -> Exit | None:
        """How the VMM ended; None while it runs."""
        found = self._driver.adopt(self._handle.vm_dir)
        return None if isinstance(found, Handle) else found or monitored.UNSEEN

    def _lost(self, what: str) -> Broken:
        return _lost(self._handle.vm_dir, what)


async def _dial(socket: AgentSocket) -> AgentConnection:
    """The agent, once there is one."""
    line = transports.open_line(socket.path, guest_dials=socket.guest_dials, uid=socket.uid)
    with closing(line):
        while True:
            with suppress(OSError):
                reader, writer = await line.connect()
                with suppress(Retryable):
                    return await AgentConnection.open(reader, writer, hello_timeout=None)
            await asyncio.sleep(REDIAL)


async def _pause(task: asyncio.Task[Any], seconds: float) -> None:
    """Let the loop run until the task is done, at most so long."""
    await asyncio.wait({task}, timeout=max(seconds, 0))


def _vmm_spec(spec: MachineSpec) -> VmmSpec:
    kernel = image_services.ensure_default_kernel()
    image_services.ensure_initrd(kernel)
    files = image_services.boot_files(kernel)
    return VmmSpec(
        vm_dir=spec.directory,
        ref=spec.directory.name,
        slot=0,
        name=HOSTNAME,
        vcpu_count=spec.vcpu_count,
        mem_size_mib=spec.mem_size_mib,
        kernel=files.vmlinux,
        bzimage=files.bzimage,
        initrd=files.initrd,
        disks=(Disk("root", spec.disk),),
        mac=MAC,
        kernel_args=("nexus.init=none", *settings.NEXUS.guest_kernel_args.split()),
    )


def _require_clean(disk: Path, directory: Path) -> None:
    """A guest that panics ends like one that was switched off; its disk tells."""
    try:
        with RawDisk(disk) as raw:
            Ext4(raw)
    except NexusError as error:
        lost = _lost(directory, f"did not write all of its disk: {error.text}")
        raise lost from error


def _lost(directory: Path, what: str) -> Broken:
    console = directory / CONSOLE
    panic = _panic(console)
    return Broken(
        f"The build VM {what}{': its kernel panicked' if panic else ''}.",
        detail="\n".join([*panic, monitored.last_words(console)]),
        hint="Its console's last lines may say why; build it again.",
        code="build-vm-lost",
    )


def _panic(console: Path) -> list[str]:
    """The line that tells of a panic; what follows it may be longer than last words are."""
    try:
        lines = console.read_text(errors="replace").splitlines()  # its monitor bounds it
    except OSError:
        return []
    return [line for line in lines if PANIC in line][:1]
