"""The rules about builds of kernels: what may be built, and from what."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from django.db import transaction

from builds.kernels import pipeline, toolchain
from builds.kernels.fragments import default_fragment, parse
from builds.kernels.kernel_org import check_version
from builds.kernels.publisher import publisher
from builds.models import KernelBuild
from images.services import host_arch
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid, NotFound
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation, open_operations

KIND = "kernel.build"
DEADLINE = timedelta(hours=8)  # on one slow CPU, nice
MAX_JOBS = 256
_SHA256 = re.compile(r"[0-9a-f]{64}")


@transaction.atomic
def start_kernel_build(
    *,
    version: str = "",
    source: str = "",
    sha256: str = "",
    fragment: str = "",
    arch: str = "",
    jobs: int = 0,
) -> Operation:
    """Build a kernel from the publisher's ``version`` or from the tarball ``source`` (a path on
    this host, with ``sha256`` to hold it to), and boot it once.

    ``fragment`` is the text of the options, left out the project's own; ``jobs`` is how many
    compilers run at once, 0 for one a CPU. Raises ``Invalid``, ``NotFound``, and ``Conflict``
    (codes ``build-tools-missing``, ``kernel-build-runs``).
    """
    arch = arch or host_arch()
    _check(version, source, sha256, arch, jobs)
    options = parse(fragment) if fragment else default_fragment(arch)
    toolchain.require_tools(published=bool(version))
    if open_operations().filter(kind=KIND).exists():
        raise Conflict(
            "A kernel is being built already; two at once would only be slower.",
            hint="See it: nexusctl kernel builds",
            code="kernel-build-runs",
        )
    build = KernelBuild.objects.create(
        version=version,
        arch=arch,
        source=source or publisher().tarball_url(version),
        fragment=options.label,
        fragment_text=options.text,
        jobs=jobs or pipeline.usual_jobs(),
    )
    operation = open_operation(
        KIND,
        f"Build Linux {version}".strip() if version else f"Build a kernel from {Path(source).name}",
        subject=build,
        params={"build": build.ref, "version": version, "source": source, "sha256": sha256},
        deadline=DEADLINE,
    )
    KernelBuild.objects.filter(pk=build.pk).update(operation_id=operation.id)
    events.append("build.started", build, fragment=build.fragment)
    return operation


@transaction.atomic
def check_kernel_version(version: str = "") -> Operation:
    """Ask the publisher whether ``version``, left out the latest stable one, can be built here.

    The operation's result says ``available``, ``checksums_ready``, ``buildable`` and ``problems``.
    """
    if version:
        check_version(version)
    title = f"Ask for Linux {version}" if version else "Ask for the latest Linux"
    return open_operation("kernel.version-check", title, params={"version": version})


def sweep_kernel_builds() -> None:
    """Remove what builds that will never go on have left; run when a worker starts."""
    working = [one.subject_id for one in open_operations().filter(kind=KIND) if one.subject_id]
    for build in KernelBuild.objects.exclude(pk__in=working):
        pipeline.remove(build)


def _check(version: str, source: str, sha256: str, arch: str, jobs: int) -> None:
    if bool(version) == bool(source):
        raise Invalid("Give either a version or a tarball.", code="which-source")
    if version:
        check_version(version)
    if arch != host_arch() or arch != "x86_64":
        raise Invalid(
            f"A kernel for {arch} cannot be built here.",
            hint="Nexus builds kernels for x86_64, on x86_64: only what boots here can be tried.",
            code="arch-unsupported",
        )
    if not 0 <= jobs <= MAX_JOBS:
        raise Invalid(f"At most {MAX_JOBS} compilers run at once, not {jobs}.", code="jobs")
    if sha256 and not _SHA256.fullmatch(sha256):
        raise Invalid("A SHA-256 has 64 hexadecimal digits, in small letters.", code="sha256")
    if source and not Path(source).is_absolute():
        raise Invalid("The path of the tarball must be absolute.", code="source-relative")
    if source and not Path(source).is_file():
        raise NotFound(
            f"There is no file {source[:300]} on the server.",
            hint="The path is one on the server's machine.",
            code="source-not-found",
        )
