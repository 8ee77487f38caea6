"""What no image keeps: what belongs to one machine alone, and what differs from run to run."""

from __future__ import annotations

from dataclasses import replace

from guest_agent.init_integration import find_init
from images.entries import Entry
from images.trees import Tree

#: Not even unpacked: Nexus brings kernel and initrd; the rest is the publisher's own machine's.
LEFT_OUT = (
    "boot",
    "etc/hostname",
    "lost+found",
    "var/cache/apk",
    # The agent of the product that the embedded Alpine was made for; ours takes its place.
    "etc/init.d/quicksand-guest-agent",
    "etc/runlevels/boot/quicksand-guest-agent",
    "usr/local/bin/quicksand-guest-agent",
)
#: Of these only the directories stay.
_EMPTIED = (
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log/apt",
    "var/tmp",
)
#: Secrets, caches and journals of one machine.
_REMOVED = (
    "etc/.pwd.lock",
    "etc/nexus/env",
    "root/.ash_history",
    "root/.bash_history",
    "root/.wget-hsts",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/statoverride-old",
    "var/lib/systemd/random-seed",
    "var/lib/urandom/random-seed",
    "var/log/alternatives.log",
    "var/log/apk.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/log/faillog",
    "var/log/lastlog",
)
#: What the guest mounts on; container images often come without.
_MOUNT_POINTS = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777}
_MACHINE_ID = "etc/machine-id"


def clean(tree: Tree) -> None:
    """Take out of ``tree`` what no image keeps; safe to repeat."""
    for path in (*LEFT_OUT, *_REMOVED, *_host_keys(tree)):
        tree.remove(path)
    for directory in _EMPTIED:
        for path in _children(tree, directory):
            tree.remove(path)
    for directory, mode in _MOUNT_POINTS.items():
        if directory not in tree:
            tree.add_directory(directory, mode=mode)
    if find_init(set(tree.paths())) == "systemd":
        # Empty means "make one": without the file systemd takes every boot for the first one.
        tree.add_file(_MACHINE_ID, b"", mode=0o444)
    else:
        tree.remove(_MACHINE_ID)


def settle_times(tree: Tree, started: int) -> int:
    """Make times a matter of the content alone; returns the newest one (epoch seconds).

    What is dated ``started`` or later was written by this run of the build, and what has no
    date was put in by it: both get the newest date of what had been there.
    """
    newest = max((entry.mtime for entry in tree if entry.mtime < started), default=0) or 1
    for entry in list(tree):
        if not 0 < entry.mtime <= newest:
            tree.describe(replace(entry, mtime=newest))
    return newest


def _children(tree: Tree, directory: str) -> list[str]:
    resolved = tree.resolve(directory)
    return [entry.path for entry in tree if entry.path and entry.parent == resolved]


def _host_keys(tree: Tree) -> list[str]:
    """SSH host keys: every VM makes its own."""

    def is_key(entry: Entry) -> bool:
        return entry.parent == "etc/ssh" and entry.name.startswith("ssh_host_")

    return [entry.path for entry in tree if is_key(entry)]
