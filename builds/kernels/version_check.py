"""Whether a version of the kernel can be built here now: is it there, signed, and can we."""

from __future__ import annotations

from builds.kernels import toolchain
from builds.kernels.fragments import default_fragment
from builds.kernels.kernel_org import Release
from builds.kernels.publisher import publisher
from images.services import host_arch
from nexus_site.core.errors import Conflict, NexusError, NotFound
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step


def plan(operation: Operation) -> Plan:
    return [
        Step("releases", "Ask which versions there are", ask_for_releases),
        Step("checksums", "Ask for its signed checksum", ask_for_checksum),
        Step("tools", "Look for what building it takes", look_for_tools),
    ]


def ask_for_releases(run: Run) -> str:
    releases, latest = publisher().releases()
    version = run.params["version"] or latest
    found = next((release for release in releases if release.version == version), None)
    run.keep(
        version=version,
        latest_stable=latest,
        listed=found is not None,
        moniker=found.moniker if found else "",
        eol=found.eol if found else False,
        released=found.released if found else "",
        source=publisher().tarball_url(version),
    )
    return _described(version, found)


def ask_for_checksum(run: Run) -> str:
    """An old version is in no list of releases, but still among the checksums."""
    version = run.made["version"]
    problem = ""
    try:
        checksum = publisher().checksum(version)
    except Conflict as error:  # the keyring is none, or gpgv is not here
        checksum, problem = None, f"{error.text} {error.hint}"
    else:
        if checksum is None and run.made["listed"]:
            problem = f"The signed checksum of Linux {version} is not there yet."
        elif checksum is None:
            problem = f"There is no Linux {version}."
    run.keep(
        available=run.made["listed"] or checksum is not None,
        checksums_ready=checksum is not None,
        sha256=checksum.sha256 if checksum else "",
        signer=checksum.signer if checksum else "",
        problems=[problem] if problem else [],
    )
    return f"signed by {checksum.signer}" if checksum else problem


def look_for_tools(run: Run) -> str:
    """What a build would need of this machine."""
    problems = list(run.made["problems"])
    try:
        default_fragment(host_arch())
        toolchain.require_tools()
    except (Conflict, NotFound) as error:
        problems.append(_said(error))
    run.keep(problems=problems, buildable=run.made["checksums_ready"] and not problems)
    return "buildable" if run.made["buildable"] else " ".join(problems)


def _described(version: str, release: Release | None) -> str:
    if release is None:
        return f"Linux {version} is not among the maintained versions"
    eol = ", end of life" if release.eol else ""
    return f"Linux {version}: {release.moniker}, {release.released}{eol}"


def _said(error: NexusError) -> str:
    return f"{error.text} {error.hint}".strip()
