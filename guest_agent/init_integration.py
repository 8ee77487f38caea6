"""The files by which a distribution's init starts the agent as its service.

A guest needs them only where the agent is not its first process, and to bring an agent back that
has ended. The service starts late in the boot on purpose: its start tells the running agent that
init has got through its services.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

AGENT = "/usr/bin/nexus-agent"
INITTAB = "etc/inittab"
_MACHINE_ID = "etc/machine-id"

_SYSTEMD_UNIT = f"""\
[Unit]
Description=Nexus guest agent

[Service]
Type=idle
ExecStart={AGENT} service
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""

_OPENRC_SCRIPT = f"""\
#!/sbin/openrc-run

description="Nexus guest agent"
supervisor=supervise-daemon
command="{AGENT}"
command_args="service"
respawn_delay=1
respawn_max=0

depend() {{
\tafter *
}}
"""

_INITTAB_LINE = f"::respawn:{AGENT} service"

Init = Literal["systemd", "openrc", "busybox"]


@dataclass(frozen=True, slots=True)
class InitFile:
    """A file to add to a root file system, or a symbolic link where ``target`` is set.

    ``path`` has no leading slash. Files belong to root.
    """

    path: str
    mode: int = 0o644
    content: str = ""
    target: str = ""


class Tree(Protocol):
    """What ``integrate`` needs of a root file system; paths have no leading slash."""

    def paths(self) -> list[str]: ...
    def read(self, path: str) -> bytes: ...
    def add_file(self, path: str, data: bytes, *, mode: int) -> Any: ...
    def add_symlink(self, path: str, target: str) -> Any: ...


def find_init(paths: Collection[str]) -> Init | None:
    """Which init the file system with these paths boots; None where it is none that is known."""
    if _has(paths, "usr/lib/systemd/systemd", "lib/systemd/systemd"):
        return "systemd"
    if _has(paths, "sbin/openrc", "usr/sbin/openrc", "usr/bin/openrc"):
        return "openrc"
    if _has(paths, INITTAB):
        return "busybox"
    return None


def _has(paths: Collection[str], *wanted: str) -> bool:
    """Whether one of ``wanted`` is there, with or without a slash before it."""
    return any(path in paths or f"/{path}" in paths for path in wanted)


def files_for(paths: Collection[str]) -> list[InitFile]:
    """The files to add for the init that ``paths`` tell of; BusyBox needs ``edit_inittab``."""
    match find_init(paths):
        case "systemd":
            return _systemd_files(paths)
        case "openrc":
            return [
                InitFile("etc/init.d/nexus-agent", 0o755, _OPENRC_SCRIPT),
                InitFile("etc/runlevels/default/nexus-agent", target="/etc/init.d/nexus-agent"),
            ]
    return []


def _systemd_files(paths: Collection[str]) -> list[InitFile]:
    merged = _has(paths, "usr/lib/systemd/systemd")
    unit = f"{'usr/' if merged else ''}lib/systemd/system/nexus-agent.service"
    wanted = "etc/systemd/system/multi-user.target.wants/nexus-agent.service"
    return [
        InitFile(unit, 0o644, _SYSTEMD_UNIT),
        InitFile(wanted, target=f"/{unit}"),
        # Empty, each VM gets its own; missing, systemd would set up all services anew as well.
        InitFile(_MACHINE_ID, 0o444),
    ]


def edit_inittab(inittab: str) -> str:
    """The inittab with the agent's line, once."""
    lines = inittab.splitlines()
    if _INITTAB_LINE not in lines:
        lines.append(_INITTAB_LINE)
    return "\n".join(lines) + "\n"


def integrate(tree: Tree) -> list[str]:
    """Add to ``tree`` what its init needs to start the agent; returns the paths that changed."""
    paths = set(tree.paths())
    files = files_for(paths)
    if find_init(paths) == "busybox":
        text = edit_inittab(tree.read(INITTAB).decode("utf-8", "surrogateescape"))
        tree.add_file(INITTAB, text.encode("utf-8", "surrogateescape"), mode=0o644)
        return [INITTAB]
    for file in files:
        if file.target:
            tree.add_symlink(file.path, file.target)
        else:
            tree.add_file(file.path, file.content.encode(), mode=file.mode)
    return [file.path for file in files]
