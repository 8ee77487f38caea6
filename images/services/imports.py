"""Root file systems that people upload, with the same checks as what is downloaded."""

from __future__ import annotations

from django.db import transaction

from images import uploads
from images.files import move_file
from images.formats.rootfs import FORMATS, detect
from images.models import Rootfs
from images.providers.base import FetchedRootfs, RootfsOffer
from images.providers.fields import check_distro, check_word
from images.services.places import host_arch
from images.services.providers import UPLOAD
from images.services.rootfs import keep, keeping_place, rootfs_path
from images.uploads import Upload
from nexus_site.core.errors import Conflict, Invalid, NexusError
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step


@transaction.atomic
def import_rootfs(
    upload: Upload,
    *,
    distro: str,
    version: str,
    format: str = "",
    checked: bool = False,
    parent: Operation | None = None,
) -> Operation:
    """Keep an uploaded file as the root file system of a distribution's version.

    ``checked``: its sender said its checksum, and it held. Raises ``Invalid``, ``Conflict``.
    """
    try:
        distro, version = check_distro(distro), check_word(version)
    except ValueError as error:
        raise Invalid(f"Distribution and version: {error}", code="rootfs-name") from error
    check_format(format)
    kept = Rootfs.objects.filter(
        distro=distro, version=version, arch=host_arch(), provider=UPLOAD
    ).first()
    if kept is not None:
        raise Conflict(
            f"{kept} was uploaded before.",
            hint="A rootfs never changes. Choose another version, or delete that one first.",
            code="rootfs-exists",
        )
    return open_operation(
        "rootfs.import",
        f"Import {distro.capitalize()} {version}",
        params={
            "upload": upload.ref,
            "filename": upload.filename,
            "sha256": upload.sha256,
            "distro": distro,
            "version": version,
            "format": format,
            "checked": checked,
        },
        parent=parent,
    )


def check_format(name: str) -> None:
    """Raises ``Invalid`` unless ``name`` is that of a format, or empty."""
    if name and name not in FORMATS:
        raise Invalid(
            f"There is no format “{name}”.",
            hint=f"Known: {', '.join(FORMATS)}; left out, it is found by looking.",
            code="format-unknown",
        )


def find_imported(sha256: str) -> Rootfs | None:
    """A root file system that was uploaded before, byte by byte this one."""
    kept = Rootfs.objects.filter(sha256=sha256, provider=UPLOAD, arch=host_arch())
    return kept.order_by("created_at").first()


# What workers run


def import_plan(operation: Operation) -> Plan:
    return [
        Step("check", "Look into the file", _check),
        Step("keep", "Keep it", _keep, keeps=True),
    ]


def give_up(operation: Operation, error: NexusError) -> None:
    """The upload of an operation that failed for good is of no use any more."""
    uploads.discard(operation.params["upload"])


def _check(run: Run) -> str:
    upload = uploads.find_upload(run.params["upload"])
    found, said = detect(upload.path), run.params["format"]
    if said and found != said:
        raise Invalid(
            f"The file is not {said}, but {found}.",
            hint="Correct the format, or leave it out.",
            code="format-unknown",
        )
    run.keep(format=found, size_bytes=upload.size_bytes)
    return f"{found}, {upload.size_bytes / 1e6:.0f} MB"


def _keep(run: Run) -> str:
    params, found = run.params, run.made["format"]
    offer = RootfsOffer(params["distro"], params["version"], host_arch(), UPLOAD, "", None, found)
    target = keeping_place(offer) / f"rootfs.{found}"
    source = uploads.uploads_dir() / params["upload"]
    if source.exists():  # else an earlier attempt has moved it
        move_file(source, target, 0o400)
    fetched = FetchedRootfs(
        target,
        params["sha256"],
        run.made["size_bytes"],
        found,
        source=f"uploaded: {params['filename']}" if params["filename"] else "uploaded",
        verification="sha256" if params["checked"] else "as uploaded",
    )
    rootfs = keep(offer, fetched)
    run.keep(rootfs=rootfs.ref)
    return f"{rootfs}, {rootfs_path(rootfs).name}"
