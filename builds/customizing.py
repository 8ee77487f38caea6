"""Packages and commands, run inside the system that is built: in a VM made for the purpose.

The tree becomes the disk of a throw-away VM, its package manager and the recipe's commands run
there with the VM's own network, and what is on the disk afterwards is the tree. Nothing of it
runs on this machine, so a recipe needs no trust.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builds.log import Output
from builds.machines import Machine, MachineSpec, provider
from builds.packing import pack_ext4
from builds.recipe import Recipe
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.trees import Tree
from nexus_site.core.errors import Invalid

STEP_TIMEOUT = 1800.0  # seconds for all packages, and for each command
_SCRATCH_UUID = uuid.UUID(int=0x6E65787573)
#: The agent writes these when the VM gets its network; the image's own come back.
_OF_THE_MACHINE = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
_POLICY = "usr/sbin/policy-rc.d"  # Debian: "may this service start?" No: nothing is booted here.
_NO_SUCH_PACKAGE = (
    re.compile(r"^\s*(\S+) \(no such package\)", re.MULTILINE),
    re.compile(r"^E: Unable to locate package (\S+)", re.MULTILINE),
    re.compile(r"^E: Package '(\S+)' has no installation candidate", re.MULTILINE),
)


@dataclass(frozen=True)
class Workbench:
    """What customizing works with: a directory of its own, a log, ways to report."""

    directory: Path
    log: Callable[[str], None]
    output: Callable[[], Output]
    check: Callable[[], None]
    note: Callable[[str], None]


@dataclass(frozen=True)
class _Command:
    """A program to run, and the place of the recipe that asked for it."""

    place: str
    shown: str
    argv: Sequence[str]


def customize(tree: Tree, recipe: Recipe, size_mib: int, bench: Workbench) -> Tree:
    """Run the recipe's packages and commands; the tree that comes of it, in a new directory.

    Raises ``Invalid`` naming the place of the recipe that failed, with the last lines it said.
    """
    commands = [*_package_commands(tree, recipe.packages), *_shell_commands(recipe.commands)]
    policy = _forbid_services(tree)
    disk = bench.directory / "machine.ext4"
    bench.note("writing the machine's disk")
    pack_ext4(tree, disk, size_mib, fs_uuid=_SCRATCH_UUID, hash_seed=_SCRATCH_UUID, timestamp=1)
    spec = MachineSpec(bench.directory / "machine", disk)
    with provider().boot(spec, check=bench.check, note=bench.note) as machine:
        for command in commands:
            _run(machine, command, _environment(recipe.env), bench)
    bench.note("reading the machine's disk")
    done = Tree.create(bench.directory / "customized")
    with open_disk(disk) as opened:
        done.fill(Ext4(opened).items())
    disk.unlink()
    for path in (*_OF_THE_MACHINE, *policy):
        _restore(done, tree, path)
    done.save()
    return done


def _package_commands(tree: Tree, packages: Sequence[str]) -> list[_Command]:
    if not packages:
        return []
    place, shown = "packages", " ".join(packages)
    if _has(tree, "sbin/apk"):
        argv = ["apk", "add", "--no-cache", "--no-progress", "--", *packages]
        return [_Command(place, f"apk add {shown}", argv)]
    if _has(tree, "usr/bin/apt-get"):
        quiet = ["-o", "Acquire::Languages=none", "-o", "Dpkg::Use-Pty=0", "-q"]
        install = ["apt-get", *quiet, "install", "--yes", "--no-install-recommends", "--"]
        return [
            _Command(place, "apt-get update", ["apt-get", *quiet, "update", "--error-on=any"]),
            _Command(place, f"apt-get install {shown}", [*install, *packages]),
        ]
    raise Invalid(
        "The recipe asks for packages, but the root file system has neither apk nor apt.",
        hint="Install them with commands, or start from another root file system.",
        code="no-package-manager",
    )


def _shell_commands(commands: Sequence[str]) -> list[_Command]:
    return [
        _Command(f"commands[{number}]", command, ["/bin/sh", "-c", command])
        for number, command in enumerate(commands, 1)
    ]


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    return {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"} | dict(env)


def _run(machine: Machine, command: _Command, env: Mapping[str, str], bench: Workbench) -> None:
    bench.log(f"$ {command.shown}")
    bench.note(command.shown.splitlines()[0][:80])
    output = bench.output()
    code = machine.execute(command.argv, env=env, output=output.add, timeout=STEP_TIMEOUT)
    output.finish()
    if code:
        raise _failed(command, code, output.recent)


def _failed(command: _Command, code: int, recent: Sequence[str]) -> Invalid:
    said = "\n".join(recent)
    for pattern in _NO_SUCH_PACKAGE:
        if command.place == "packages" and (found := pattern.search(said)):
            return Invalid(
                f"packages: there is no package “{found[1]}”.",
                detail=said,
                hint="Look for its name in the distribution's package list.",
                code="package-unknown",
            )
    first = command.shown.splitlines()[0][:100]
    return Invalid(
        f"{command.place}: “{first}” ended with exit code {code}.",
        detail=said,
        hint="The build's log has everything that it said.",
        code="command-failed",
    )


def _forbid_services(tree: Tree) -> tuple[str, ...]:
    """Keep Debian's packages from starting services; what has to be put back afterwards."""
    if not _has(tree, "usr/bin/apt-get") or _POLICY in tree:
        return ()
    tree.add_file(_POLICY, b"#!/bin/sh\nexit 101\n", mode=0o755)
    return (_POLICY,)


def _restore(done: Tree, before: Tree, path: str) -> None:
    """What ``path`` was in the image before the machine ran; not there if it was not."""
    done.remove(path)
    if path in before and path != _POLICY:
        entry = before.entry(path)
        done.add(entry, before.content_path(entry) if entry.content else ())


def _has(tree: Tree, path: str) -> bool:
    return tree.resolve(path) in tree
