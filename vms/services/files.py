"""Files in VMs that people and agents read and change."""

from __future__ import annotations

from collections.abc import AsyncIterable
from dataclasses import dataclass

from asgiref.sync import sync_to_async

from guest_agent.files import FileInfo, Files, Unpacked
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.text import visible
from vms.agents import GatewayAgent
from vms.models import VM
from vms.services.suspension import ready_vm

MAX_PATH = 200  # characters of a path that history keeps
MAX_TEXT = 256 << 10  # bytes of a file that is edited


async def files_of(ref: str) -> VMFiles:
    """The files of a VM, by name or ID. ``NotFound``; ``Conflict``, ``Retryable`` unless ready."""
    return VMFiles(await sync_to_async(ready_vm)(ref))


@dataclass(frozen=True)
class VMFiles:
    """What is read of a VM's files is ``reading``; each change is told in the VM's history."""

    vm: VM

    @property
    def reading(self) -> Files:
        return Files(GatewayAgent(self.vm))

    async def write(
        self,
        path: str,
        data: AsyncIterable[bytes],
        *,
        size: int | None = None,
        mode: int | None = None,
        user: str = "",
        parents: bool = False,
    ) -> int:
        """See ``Files.write``; the file is there whole, or as it was."""
        written = await self.reading.write(
            path, data, size=size, mode=mode, user=user, parents=parents
        )
        await self._tell("wrote", path, bytes=written)
        return written

    async def write_text(self, path: str, text: str, *, version: str) -> FileInfo:
        """Put ``text`` in the place of the file that was ``version``, and keep mode and owner.

        Raises ``Conflict`` (``file-changed``) where it is another one by now.
        """
        data = text.encode()
        if len(data) > MAX_TEXT:
            raise Invalid(f"It has more than {MAX_TEXT >> 10} KiB.", code="too-long")
        if version_of(await self.reading.stat(path, follow=True)) != version:
            raise Conflict(
                "The file was changed in the VM meanwhile.",
                hint="Copy what you want to keep, open it again and put it in.",
                code="file-changed",
            )
        await self.write(path, _once(data), size=len(data))
        return await self.reading.stat(path, follow=True)

    async def write_tar(
        self,
        path: str,
        data: AsyncIterable[bytes],
        *,
        user: str = "",
        keep_owner: bool = False,
        parents: bool = False,
    ) -> Unpacked:
        """See ``Files.write_tar``."""
        unpacked = await self.reading.write_tar(
            path, data, user=user, keep_owner=keep_owner, parents=parents
        )
        await self._tell("unpacked", path, entries=unpacked.entries, bytes=unpacked.bytes)
        return unpacked

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        await self.reading.remove(path, recursive=recursive)
        await self._tell("removed", path)

    async def mkdir(
        self, path: str, *, mode: int = 0o755, user: str = "", parents: bool = False
    ) -> None:
        await self.reading.mkdir(path, mode=mode, user=user, parents=parents)
        await self._tell("made", path)

    async def move(self, path: str, to: str, *, replace: bool = False) -> None:
        await self.reading.move(path, to, replace=replace)
        await self._tell("moved", path, to=_shortened(to))

    async def _tell(self, action: str, path: str, **more: int | str) -> None:
        await sync_to_async(events.append)(
            "vm.files", self.vm, action=action, path=_shortened(path), **more
        )


def version_of(info: FileInfo) -> str:
    """Differs once a file has been changed: its size, and when it was written."""
    return f"{info.size:x}-{round(info.modified * 1_000_000):x}"


async def _once(data: bytes) -> AsyncIterable[bytes]:
    yield data


def _shortened(path: str) -> str:
    text = visible(path)
    return text if len(text) <= MAX_PATH else f"{text[: MAX_PATH - 1]}…"
