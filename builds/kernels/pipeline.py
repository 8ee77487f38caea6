"""From a kernel's source to a kernel that has booted: the steps of its build.

Each step works in the build's own directory and may be repeated; the log says what was done,
for people.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from builds import log
from builds.kernels import source_tree, toolchain
from builds.kernels.fragments import Fragment, parse
from builds.kernels.making import Workplace, is_object
from builds.kernels.publisher import publisher
from builds.models import KernelBuild
from builds.workspace import workspace
from images import services as image_services
from images.files import move_file, require_room, sha256_of, whole_file
from images.kernel_elf import check_vmlinux
from images.models import Kernel
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NexusError, NotFound
from nexus_site.core.ids import NexusID, free_name
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step

PROVIDER = "built"
USUAL_OBJECTS = 1500  # of the project's own fragment
ROOM = 2_500_000_000  # bytes: the tarball, its source, and the objects of the project's fragment
_TELL_EVERY = 1.0  # seconds between two looks at whether the build is still wanted


def plan(operation: Operation) -> Plan:
    return [
        Step("source", "Fetch the source and check it", fetch),
        Step("unpack", "Unpack it", unpack),
        Step("configure", "Configure it and check its options", configure),
        Step("compile", "Compile the kernel", compile_kernel),
        Step("keep", "Keep the kernel", keep, undo=drop),
        Step("boot", "Boot it once on each VMM", boot),
    ]


# The steps


def fetch(run: Run) -> str:
    """The tarball, checked: as ``--sha256`` says, or as kernel.org's signed list does."""
    build = build_of(run)
    toolchain.require_tools(published=not run.params["source"])
    workspace(build).mkdir(parents=True, exist_ok=True, mode=0o700)
    require_room(workspace(build), ROOM, "building a kernel")
    _note(build, compiler=toolchain.compiler())
    log.write(build, f"{build.title}, {build.compiler}")
    if not run.params["source"]:
        return _download(run, build)
    tarball = Path(run.params["source"])
    if not tarball.is_file():
        raise NotFound(f"There is no file {tarball} any more.", code="source-not-found")
    run.progress(note="checking its sha256")
    sha256, wanted = sha256_of(tarball), run.params["sha256"]
    if wanted and sha256 != wanted:
        raise Broken(
            "The tarball is not the one that was asked for: its checksum is wrong.",
            detail=f"{tarball}\nexpected: sha256 {wanted}\nfound: sha256 {sha256}",
            hint="Fetch it again from where the checksum is from.",
            code="checksum",
        )
    vouched = "sha256" if wanted else "nobody vouches for it"
    _note(build, source_sha256=sha256, verification=vouched)
    run.keep(tarball=str(tarball))
    log.write(build, f"source {tarball}, sha256 {sha256} ({vouched})")
    return tarball.name


def _download(run: Run, build: KernelBuild) -> str:
    source, version = publisher(), run.params["version"]
    run.progress(note="asking for its checksum")
    checksum = source.checksum(version)
    if checksum is None:
        raise NotFound(
            f"The publisher has no signed checksum of Linux {version}.",
            hint=f"See what there is: nexusctl kernel version-check {version}",
            code="version-not-found",
        )
    tarball = source.download(
        version,
        checksum,
        workspace(build),
        lambda done, size: run.progress(done / size if size else None),
    )
    verification = f"sha256, OpenPGP {checksum.signer}"
    _note(build, source_sha256=checksum.sha256, verification=verification)
    run.keep(tarball=str(tarball))
    log.write(build, f"source {build.source}, sha256 {checksum.sha256} ({verification})")
    return tarball.name


def unpack(run: Run) -> str:
    """The source in the build's directory; it must be the kernel that was asked for."""
    build, place = build_of(run), place_of(run)
    place.end_left()
    for left in (place.source, place.out):
        shutil.rmtree(left, ignore_errors=True)
    place.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    tarball = Path(run.made["tarball"])
    source_tree.unpack(tarball, place.source, lambda count: run.progress(note=f"{count} entries"))
    version = source_tree.version_of(place.source)
    wanted = run.params["version"]
    if wanted and version not in (wanted, f"{wanted}.0"):
        raise source_tree.not_a_kernel(f"it is Linux {version}, not {wanted}")
    _note(build, version=version)
    log.write(build, f"unpacked Linux {version}")
    return f"Linux {version}"


def configure(run: Run) -> str:
    build, place = build_of(run), place_of(run)
    output = log.Output(build)
    fragment = fragment_of(build)
    try:
        place.configure(fragment, _listener(run, output.add))
    finally:
        output.finish()
    note = f"{fragment.label}: {len(fragment.wishes)} options, all of them took"
    log.write(build, note)
    return note


def compile_kernel(run: Run) -> str:
    build, place = build_of(run), place_of(run)
    place.end_left()
    output, counter = log.Output(build), Counter(run, build)
    try:
        place.compile(build.jobs, _listener(run, output.add, counter.add))
    finally:
        output.finish()
    counter.finish()
    return f"{counter.compiled} objects, {place.vmlinux.stat().st_size / 1e6:.1f} MB"


def keep(run: Run) -> str:
    """The kernel in its place, with its options; nobody boots it yet."""
    build, place = build_of(run), place_of(run)
    if place.vmlinux.exists():
        check_vmlinux(place.vmlinux.read_bytes())
        run.keep(sha256=sha256_of(place.vmlinux), size=place.vmlinux.stat().st_size)
    sha256 = run.made["sha256"]
    directory = _directory(build, sha256)
    kept = image_services.assets_dir() / directory
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    with whole_file(kept / "config", mode=0o400) as temporary:
        shutil.copyfile(place.config, temporary)
    if place.vmlinux.exists():  # last: where it is, the directory is complete
        move_file(place.vmlinux, kept / "vmlinux", 0o400)
    kernel, new = _row(run, build, directory, sha256_of(kept / "config"))
    run.keep(kernel=kernel.ref, new=new)
    log.write(build, f"kernel {kernel.name} ({kernel.ref}), sha256 {sha256}")
    return kernel.name


def _directory(build: KernelBuild, sha256: str) -> str:
    """Where the kernel is kept, below the assets."""
    return f"kernels/{build.version}-{build.arch}-{sha256[:16]}"


@transaction.atomic
def _row(run: Run, build: KernelBuild, directory: str, config_digest: str) -> tuple[Kernel, bool]:
    """The row of these very bytes, or a new one; whether it is new."""
    sha256 = run.made["sha256"]
    kernel = Kernel.objects.filter(sha256=sha256, arch=build.arch).first()
    new = kernel is None
    if kernel is None:
        base = f"linux-{build.version}-{build.fragment}".lower()
        base = "".join(c if c.isalnum() else "-" for c in base)[:50].strip("-")
        kernel = Kernel.objects.create(
            name=free_name(lambda name: Kernel.objects.filter(name=name).exists(), base),
            version=build.version,
            arch=build.arch,
            provider=PROVIDER,
            directory=directory,
            sha256=sha256,
            size_bytes=run.made["size"],
            source=build.source,
            verification=build.verification,
            config_digest=config_digest,
            compiler=build.compiler,
        )
        events.append("kernel.created", kernel, version=kernel.version)
    KernelBuild.objects.filter(pk=build.pk).update(kernel=kernel)
    return kernel, new or bool(run.made.get("new"))


def drop(run: Run) -> str | None:
    """Take back a kernel that this build has made and nobody has tried; a bad one stays."""
    kernel = _kernel(run)
    if kernel is None:
        _drop_half(run)
        return None
    image_services.discard_boots(kernel)
    if run.made.get("new") and kernel.state == Kernel.State.UNVERIFIED:
        kernel.delete()
        shutil.rmtree(image_services.kernel_dir(kernel), ignore_errors=True)
        return None
    return f"{kernel.name}, which stays, as {kernel.get_state_display().lower()}"


def _drop_half(run: Run) -> None:
    """Take back what there is of a kernel that has not become one, as on a full disk."""
    if "sha256" not in run.made:
        return
    directory = _directory(build_of(run), run.made["sha256"])
    if not Kernel.objects.filter(directory=directory).exists():
        shutil.rmtree(image_services.assets_dir() / directory, ignore_errors=True)


def boot(run: Run) -> str:
    """Does it come to the agent's hello on each VMM that works here?"""
    build, kernel = build_of(run), _kernel(run)
    if kernel is None:
        raise Conflict("The kernel has been removed meanwhile.", code="kernel-gone")
    tried = image_services.check_boots(
        kernel, check=run.check, note=lambda text: run.progress(note=text)
    )
    seconds = [f"{vmm} {found['seconds']:.2f} s" for vmm, found in sorted(tried.boots.items())]
    note = f"hello: {', '.join(seconds)}" if seconds else "no VMM works here: it was not tried"
    log.write(build, note)
    with transaction.atomic():
        _end(build, KernelBuild.State.SUCCEEDED)
        events.append("build.ended", build, state=KernelBuild.State.SUCCEEDED, kernel=kernel.ref)
    remove(build)
    return note


# What comes of them


def failed(operation: Operation, error: NexusError) -> None:
    """The build's row and log say why; its files are gone."""
    build = KernelBuild.objects.filter(pk=NexusID.parse(operation.params["build"])).first()
    if build is None:
        return
    cancelled = error.code == "cancelled"
    state = KernelBuild.State.CANCELLED if cancelled else KernelBuild.State.FAILED
    with transaction.atomic():
        _end(build, state, error.record())
        events.append("build.ended", build, state=state, reason=error.text)
    remove(build)
    said = error.code == "kernel-build-failed"  # its detail is what stands in the log already
    log.write(build, f"{state.upper()}: {error.text}\n{'' if said else error.detail}".rstrip())


def remove(build: KernelBuild) -> None:
    """End what still runs for the build, and remove its directory; safe to repeat."""
    Workplace(workspace(build)).end_left()
    shutil.rmtree(workspace(build), ignore_errors=True)


def build_of(run: Run) -> KernelBuild:
    """The build that an operation carries out; ``Conflict`` when it has been deleted."""
    build = KernelBuild.objects.filter(pk=NexusID.parse(run.params["build"])).first()
    if build is None:
        raise Conflict("The build has been deleted meanwhile.", code="build-gone")
    return build


def place_of(run: Run) -> Workplace:
    return Workplace(workspace(build_of(run)))


def fragment_of(build: KernelBuild) -> Fragment:
    return parse(build.fragment_text)


class Counter:
    """Counts the objects that make says it has compiled, and tells the build's row."""

    def __init__(self, run: Run, build: KernelBuild) -> None:
        self._run, self._build = run, build
        self._rest, self._told = b"", 0.0
        self.compiled = build.compiled
        before = KernelBuild.objects.filter(
            state=KernelBuild.State.SUCCEEDED, fragment=build.fragment, compiled__gt=0
        )
        last = before.order_by("-created_at").values_list("compiled", flat=True).first()
        self.expected = max(last or USUAL_OBJECTS, self.compiled)

    def add(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.compiled += sum(map(is_object, lines))
        if time.monotonic() - self._told >= _TELL_EVERY:
            self._told = time.monotonic()
            self.save()
            note = f"{self.compiled} of about {max(self.expected, self.compiled)} objects"
            self._run.progress(min(self.compiled / self.expected, 0.99), note)

    def save(self) -> None:
        _note(self._build, compiled=self.compiled, expected=max(self.expected, self.compiled))

    def finish(self) -> None:
        """All objects are there."""
        self.expected = self.compiled
        self.save()


def _listener(run: Run, *takers: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Gives what a program says to all, and looks each second whether it is still wanted."""
    looked = 0.0

    def listen(data: bytes) -> None:
        nonlocal looked
        for take in takers:
            take(data)
        if time.monotonic() - looked >= _TELL_EVERY:
            looked = time.monotonic()
            run.check()

    return listen


def _kernel(run: Run) -> Kernel | None:
    ref = run.made.get("kernel")
    return Kernel.objects.filter(pk=NexusID.parse(ref)).first() if ref else None


def _note(build: KernelBuild, **values: object) -> None:
    for name, value in values.items():
        setattr(build, name, value)
    build.save(update_fields=list(values))


def _end(build: KernelBuild, state: str, error: dict[str, str] | None = None) -> None:
    KernelBuild.objects.filter(pk=build.pk).update(
        state=state, ended_at=timezone.now(), error=error or {}
    )


def usual_jobs() -> int:
    """As many compilers as there are CPUs; they are nice."""
    return os.cpu_count() or 1
