"""The rules about kernels on this host: brought here, tried, used, checked, removed.

Kernels are kept side by side and never change. The files of one that a VM runs, is pinned to, or
starts with by default stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import transaction

from images.downloads import sweep_partials
from images.files import scratch_directory, sweep, sync_directory
from images.kernel_files import facts_of, problems
from images.models import Kernel
from images.providers import kernels as providers
from images.providers.kernels.base import VMLINUX, complete
from images.services.fetched import drop_archive, fetched_before, keep_fetched
from images.services.kernel_boots import check_boots
from images.services.kernel_offers import kernel_provider
from images.services.kernels import initrd_path, kernel_dir
from images.services.places import assets_dir, host_arch
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict
from nexus_site.core.ids import NexusID, free_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation, open_operations
from nexus_site.core.steps import Plan, Run, Step

KIND, VERIFY = "kernel.download", "kernel.verify"
DEADLINE = timedelta(hours=1)

#: (ID of the kernel, name of the VM) of each VM that runs; filled by ``vms``.
Users = Callable[[], Iterable[tuple[int, str]]]
_users: list[Users] = []


def ask_for_kernel_users(users: Users) -> None:
    """Have ``users`` asked before a kernel is removed; called once by the room that knows."""
    if users not in _users:
        _users.append(users)


def with_kernel_vms(rows: Iterable[Kernel]) -> list[Kernel]:
    """The kernels, each told which VMs run it and are pinned to it; asks once for all."""
    kernels = list(rows)
    running: dict[int, list[str]] = {}
    for users in _users:
        for pk, name in users():
            running.setdefault(pk, []).append(name)
    pinned: dict[int, list[str]] = {}
    pins = Kernel.objects.filter(pk__in=[row.pk for row in kernels], vms__isnull=False)
    for pk, name in pins.values_list("pk", "vms__name"):
        pinned.setdefault(int(pk), []).append(name)
    for kernel in kernels:
        kernel.running_vms = sorted(running.get(int(kernel.pk), []))
        kernel.pinned_vms = sorted(pinned.get(int(kernel.pk), []))
    return kernels


def is_here(kernel: Kernel) -> bool:
    """Whether its files are there, as far as a look tells."""
    return (kernel_dir(kernel) / VMLINUX).is_file()


def kernels_dir() -> Path:
    directory = assets_dir() / "kernels"
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    return directory


@transaction.atomic
def download_kernel(
    version: str = "", provider: str = providers.DEFAULT, path: str = ""
) -> Operation:
    """Bring a kernel here, and boot it once on each VMM; without a version the newest.

    ``path`` names a place on the server: needed by ``local``, for ``distro`` a package in place
    of a download. It is good if it boots, and nobody's default before somebody says so. Raises
    ``Invalid``, ``Denied``, ``Conflict``.
    """
    version = version.strip()
    kernel_provider(provider).check(version, path)
    if busy := open_operations().filter(kind=KIND).first():
        raise Conflict(
            f"A kernel is on its way: {busy.title}.",
            hint=f"Wait for it: nexusctl operation wait {busy.ref}",
            code="kernel-busy",
            extra={"operation": busy.ref},
        )
    return open_operation(
        KIND,
        f"Fetch the kernel {version} ({provider})".replace("  ", " "),
        params={"version": version, "provider": provider, "path": path, "arch": host_arch()},
        deadline=DEADLINE,
    )


@transaction.atomic
def use_kernel(kernel: Kernel) -> Kernel:
    """Start VMs with this kernel from now on, unless they are pinned to another.

    Raises ``Conflict`` (``kernel-not-good``) unless it has booted or came with Nexus.
    """
    _require_files(kernel)
    if kernel.provider != "embedded" and kernel.state != Kernel.State.GOOD:
        why = "did not boot" if kernel.state == Kernel.State.BAD else "has not booted yet"
        raise Conflict(
            f"The kernel “{kernel.name}” {why}; only a good one may be the default.",
            hint=f"Try it: nexusctl kernel verify {kernel.name} --boot",
            code="kernel-not-good",
        )
    if kernel.arch != host_arch():
        raise Conflict(
            f"The kernel “{kernel.name}” is for {kernel.arch}; this host is {host_arch()}.",
            code="kernel-arch",
        )
    if not kernel.is_default:
        Kernel.objects.filter(arch=kernel.arch, is_default=True).update(is_default=False)
        kernel.is_default = True
        kernel.save(update_fields=["is_default"])
        events.append("kernel.default", kernel, version=kernel.version)
    return kernel


@transaction.atomic
def remove_kernel(kernel: Kernel) -> None:
    """Remove a kernel that nobody needs. Raises ``Conflict`` that says who does."""
    if kernel.is_default:
        raise Conflict(
            f"The kernel “{kernel.name}” is the default: VMs start with it.",
            hint="Use another one first: nexusctl kernel use NAME",
            code="kernel-default",
        )
    with_kernel_vms([kernel])
    for names, does, hint in (
        (kernel.running_vms, "is run by", "Stop them first."),
        (
            kernel.pinned_vms,
            "is what these VMs start with",
            "Give them another: nexusctl vm update VM --kernel NAME",
        ),
    ):
        if names:
            raise Conflict(
                f"The kernel “{kernel.name}” {does}: {', '.join(names[:20])}.",
                hint=hint,
                code="kernel-used",
                extra={"vms": list(names)},
            )
    _require_idle(kernel)
    directory, initrd = kernel_dir(kernel), initrd_path(kernel)
    events.append("kernel.removed", kernel, version=kernel.version)
    Kernel.objects.filter(pk=kernel.pk).delete()

    def remove_files() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        initrd.unlink(missing_ok=True)

    transaction.on_commit(remove_files)


@transaction.atomic
def verify_kernel(kernel: Kernel, *, boot: bool = False) -> Operation:
    """Read the kernel's files and compare their checksums; with ``boot``, boot it once again."""
    _require_idle(kernel)
    return open_operation(
        VERIFY,
        f"Verify the kernel {kernel.name}",
        subject=kernel,
        params={"kernel": kernel.ref, "boot": boot},
    )


def sweep_kernels() -> None:
    """Remove what interrupted downloads and removals left; run when a worker starts."""
    directory = kernels_dir()
    sweep(directory)
    sweep_partials(directory)
    if open_operations(children=True).filter(kind__startswith="kernel.").exists():
        return  # they go on from what is there
    kept = {assets_dir() / name for name in Kernel.objects.values_list("directory", flat=True)}
    for path in directory.iterdir():
        if path not in kept and not path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _require_files(kernel: Kernel) -> None:
    if not is_here(kernel):
        raise Broken(
            f"The files of the kernel “{kernel.name}” are gone.",
            hint=_way_back(kernel),
            code="kernel-missing",
        )


def _way_back(kernel: Kernel) -> str:
    """How its files come back."""
    way = f"download {kernel.version} --provider {kernel.provider}"
    if kernel.provider not in providers.NAMES:
        way = f"build {kernel.version}"
    return f"Bring them back as they came: nexusctl kernel {way}"


def _require_idle(kernel: Kernel) -> None:
    if busy := open_operations(kernel).first():
        raise Conflict(
            f"Something is done with the kernel “{kernel.name}” already: {busy.title}.",
            hint=f"Wait for it: nexusctl operation wait {busy.ref}",
            code="kernel-busy",
            extra={"operation": busy.ref},
        )


# What workers run


def download_plan(operation: Operation) -> Plan:
    return [
        Step("fetch", "Fetch the kernel", _fetch, undo=drop_archive),
        Step("install", "Take it out and keep it", _install, done=_is_kept, keeps=True),
        Step("boot", "Boot it on each VMM", _boot, done=_has_booted),
    ]


def verify_plan(operation: Operation) -> Plan:
    verify = Step("verify", "Read the files and compare their checksums", _verify)
    if not operation.params["boot"]:
        return [verify]
    return [verify, Step("boot", "Boot it on each VMM", _boot)]


def _fetch(run: Run) -> str:
    params = run.params
    provider = kernel_provider(params["provider"])
    offer = provider.find(params["version"], params["arch"], params["path"])
    fetched = provider.fetch(
        offer,
        params["path"],
        kernels_dir(),
        lambda done, size: run.progress(done / size if size else None),
    )
    keep_fetched(run, fetched)
    return f"{fetched.version}, from {fetched.source}"


def _is_kept(run: Run) -> str | None:
    return "it is there" if "kernel" in run.made else None


def _install(run: Run) -> str:
    fetched = fetched_before(run)
    with scratch_directory(kernels_dir()) as scratch:
        directory = scratch / "kernel"
        directory.mkdir(mode=0o755)
        kernel_provider(run.params["provider"]).unpack(fetched, directory)
        run.check()
        values = {
            "version": complete(directory),
            "arch": fetched.arch,
            "provider": run.params["provider"],
            "source": fetched.source[:500],
            "verification": fetched.verification[:200],
            **facts_of(directory),
        }
        kernel = keep_kernel(directory, values)
    drop_archive(run)
    run.keep(kernel=kernel.ref)
    return f"{kernel.name}, {kernel.size_bytes / 1e6:.0f} MB"


@transaction.atomic
def keep_kernel(directory: Path, values: dict[str, Any], name: str = "") -> Kernel:
    """The row of the kernel in ``directory``, which goes to its place unless it is there.

    The same ``vmlinux`` is the same kernel, whoever it came from; its files are made whole.
    """
    kernel = Kernel.objects.filter(sha256=values["sha256"], arch=values["arch"]).first()
    if kernel is None:
        base = name or f"{values['provider']}-{values['version']}"
        kernel = Kernel(name=_free_name(base))
        kernel.directory = f"kernels/{kernel.name}"
    target, new = kernel_dir(kernel), kernel._state.adding
    other = kernel.config_digest != values["config_digest"]
    if new or other or problems(target, kernel.sha256, kernel.config_digest, _on):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        directory.rename(target)
        sync_directory(target.parent)
        for field in values if new else ("config_digest", "compiler"):
            setattr(kernel, field, values[field])
        kernel.save()
        events.append(
            "kernel.created" if new else "kernel.verified", kernel, version=kernel.version
        )
    return kernel


def _free_name(base: str) -> str:
    """A name like ``distro-6-1-0-56-cloud-amd64``."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in base.lower())[:58].strip("-")
    return free_name(lambda name: Kernel.objects.filter(name=name).exists(), plain)


def _has_booted(run: Run) -> str | None:
    if "kernel" not in run.made or _kernel(run).state != Kernel.State.GOOD:
        return None
    return "it has booted before"


def _boot(run: Run) -> str:
    kernel = check_boots(_kernel(run), check=run.check, note=lambda text: run.progress(note=text))
    if kernel.state != Kernel.State.GOOD:
        return "no VMM works here: it stays unverified"
    took = [f"{vmm} {found['seconds']:.1f} s" for vmm, found in kernel.boots.items()]
    return f"it boots: {', '.join(took)}"


def _verify(run: Run) -> str:
    kernel = _kernel(run)
    found = problems(kernel_dir(kernel), kernel.sha256, kernel.config_digest, run.check)
    events.append("kernel.damaged" if found else "kernel.verified", kernel)
    if found:
        raise Broken(
            f"The files of the kernel “{kernel.name}” are damaged: {', '.join(found)}.",
            detail=f"expected: sha256 {kernel.sha256}",
            hint=_way_back(kernel),
            code="kernel-damaged",
        )
    return f"sha256 {kernel.sha256[:12]}… holds"


def _kernel(run: Run) -> Kernel:
    ref = run.params.get("kernel") or run.made["kernel"]
    return Kernel.objects.get(pk=NexusID.parse(ref))


def _on() -> None:
    """The check that never gives up."""
