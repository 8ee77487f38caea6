"""Debian, made here by ``mmdebstrap`` from the packages of a mirror; boots with systemd.

The mirror is the configured one or that of this system's apt, whose signatures are checked by
apt with Debian's archive keyring. The same state of the mirror gives the same bytes: all times
are those of the suites' Release files.
"""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from backports import zstd

from images.files import Progress, no_progress, scratch_directory, sha256_of, whole_file
from images.providers import mmdebstrap
from images.providers.apt_sources import system_sources
from images.providers.base import FetchedRootfs, Field, ProviderType, RootfsOffer
from images.providers.debian_archive import Archive, State, archive_of, check_mirror, state_of
from nexus_site.core.errors import NexusError, NotFound, as_nexus_error

#: The releases that are known to boot here, by code name, with their numbers.
RELEASES = {"bookworm": "12", "trixie": "13"}
KEYRINGS = Path("/usr/share/keyrings")
#: What a guest has beside Debian's ``minbase`` (essential and required packages, and apt).
PACKAGES = (
    "usr-is-merged",  # else apt converts the tree with usrmerge, and keeps 50 MB of Perl for it
    "systemd",
    "systemd-sysv",
    "udev",  # without it systemd waits for every disk that fstab names
    "iproute2",
    "procps",
    "ca-certificates",
)

_KEYRING = KEYRINGS / "debian-archive-keyring.gpg"
_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
_FORMAT = "tar.zst"
_LEVEL = 3
_STEP = 1 << 20
# Read by nobody in a guest; copyrights stay, as licences ask.
_LEFT_OUT = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/lib/udev/hwdb.d/*",  # names of hardware that no VM has: 20 MB
    "path-exclude=/usr/lib/udev/hwdb.d/*",
)
# What a VM has no use for: a screen's login, LVM snapshots to check, modules that are not in the
# image (its kernel comes from outside), and an apt that holds the lock when someone needs it.
_DISABLED = (
    "getty@.service",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
)
_MASKED = ("modprobe@.service", "systemd-modules-load.service")
_CUSTOMIZE = (
    f'chroot "$1" systemctl disable {" ".join(_DISABLED)}',
    f'chroot "$1" systemctl mask {" ".join(_MASKED)}',
    # apt's, whether or not apt here could go without root.
    'chroot "$1" chown _apt var/cache/apt/archives/partial var/lib/apt/lists/partial',
    # This machine's; mmdebstrap itself empties machine-id, which is filled at the first boot.
    'cd "$1/etc" && rm -f hostname && : > resolv.conf && chmod 644 resolv.conf',
)
_OPTIONS = (
    "--mode=unshare",  # for root as well: its mounts vanish with the process
    "--variant=minbase",
    "--format=tar",
    f"--include={','.join(PACKAGES)}",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    '--aptopt=Acquire::Languages "none"',
    *(f"--dpkgopt={option}" for option in _LEFT_OUT),
    *(f"--customize-hook={command}" for command in _CUSTOMIZE),
)
# How far it is, in percent, when mmdebstrap says that it begins with something.
_STAGES = (
    ("running apt-get update", 5),
    ("downloading packages", 15),
    ("extracting archives", 30),
    ("installing essential", 40),
    ("installing remaining", 60),
    ("running --customize-hook", 80),
    ("creating tarball", 85),
    ("success in", 90),
)


class DebianProvider:
    """Root file systems of the Debian releases whose keys this system has."""

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        self.name = name
        self._mirror = str(config.get("mirror") or "").rstrip("/")
        self._security = str(config.get("security_mirror") or "").rstrip("/")
        self._keyring = str(config.get("keyring") or "")

    def offers(self) -> Sequence[RootfsOffer]:
        """The releases for this machine; none where it knows no mirror or has no keys."""
        try:
            archive = self._archive()
        except NexusError:
            return []
        arch = platform.machine()
        return [
            RootfsOffer(
                distro="debian",
                version=codename,
                arch=arch,
                provider=self.name,
                filename=f"debian-{codename}-{_ARCHES[arch]}.{_FORMAT}",
                size_bytes=None,
                format=_FORMAT,
                source=f"mmdebstrap from {archive.uri}",
                aliases=(number,),
            )
            for codename, number in RELEASES.items()
            if arch in _ARCHES and self._has_keys_of(codename)
        ]

    def refresh(self) -> Sequence[RootfsOffer]:
        """The releases that the mirror has; raises what keeps it from answering."""
        archive, found = self._archive(), []
        with tempfile.TemporaryDirectory(prefix="nexus-debian-") as scratch:
            for offer in self.offers():
                with contextlib.suppress(NotFound):
                    state_of(archive, offer.version, Path(scratch), lambda words: None)
                    found.append(offer)
        return found

    def serves(self, distro: str) -> bool:
        return distro.lower() == "debian"

    def find(self, distro: str, version: str, arch: str) -> RootfsOffer | None:
        """The offer of a release; ``Invalid`` where this machine knows no mirror."""
        if not self.serves(distro):
            return None
        self._archive()
        found = (o for o in self.offers() if o.arch == arch and o.matches(distro, version))
        return next(found, None)

    def fetch(
        self, offer: RootfsOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedRootfs:
        """Make the root file system; takes about a minute. ``progress`` may raise to give up."""
        program = mmdebstrap.find_program()
        own = self.find(offer.distro, offer.version, offer.arch)
        if own is None:
            known = ", ".join(f"{name} ({number})" for name, number in RELEASES.items())
            raise NotFound(
                f"Debian {offer.version} for {offer.arch} cannot be made on this machine.",
                hint=f"Known here: {known}, for this machine's architecture, with Debian's keys.",
                code="rootfs-not-found",
            )
        target = destination_dir / own.filename
        _make_directory(destination_dir)
        with scratch_directory(destination_dir) as scratch:
            tar = scratch / "rootfs.tar"
            state = self._bootstrap(program, own.version, tar, progress)
            with whole_file(target, mode=0o400) as temporary:
                _compress(tar, temporary, progress)
        keys = "the configured keyring" if self._keyring else _KEYRING.stem
        return FetchedRootfs(
            path=target,
            sha256=sha256_of(target),
            size_bytes=target.stat().st_size,
            format=_FORMAT,
            source=f"{own.source}, its state of {state.date:%Y-%m-%d %H:%M} UTC",
            verification=f"OpenPGP by apt ({keys}), made here",
        )

    def _bootstrap(self, program: str, codename: str, tar: Path, progress: Progress) -> State:
        """Run mmdebstrap; the state of the archive that it took."""
        scratch = tar.parent
        done = 0

        def watch(words: str) -> None:
            nonlocal done
            done = max([done, *(percent for stage, percent in _STAGES if stage in words)])
            progress(done, 100)

        state = state_of(self._archive(), codename, scratch, watch)
        signed_by = "" if self._keyring else f"[signed-by={_KEYRING}] "
        lines = [f"deb {signed_by}{uri} {suite} main" for suite, uri in state.suites.items()]
        environment = {"SOURCE_DATE_EPOCH": str(int(state.date.timestamp()))}
        if os.geteuid() == 0:  # else root in the namespace could not get into our directories
            environment["TMPDIR"] = str(scratch)
        with self._trust() as trust:
            argv = [program, *_OPTIONS, *trust, codename, "-", *lines]
            mmdebstrap.run(argv, watch, out=tar, environment=environment)
        return state

    @contextlib.contextmanager
    def _trust(self) -> Iterator[list[str]]:
        """The options by which apt trusts the configured keyring, there and in the guest, alone."""
        if not self._keyring:
            yield []
            return
        with tempfile.TemporaryDirectory(prefix="nexus-debian-") as directory:
            key = Path(directory) / "mirror.asc"
            key.write_text(self._keyring)
            for path, mode in ((Path(directory), 0o755), (key, 0o644)):  # read in the namespace
                path.chmod(mode)
            yield [
                f"--keyring={key}",
                f"--keyring={directory}",
                '--setup-hook=mkdir -p "$1/etc/apt/trusted.gpg.d"',
                f"--setup-hook=upload {quote(str(key))} /etc/apt/trusted.gpg.d/mirror.asc",
            ]

    def _archive(self) -> Archive:
        """The configured mirror, or this system's."""
        if self._mirror:
            return Archive(self._mirror, self._security)
        archive = archive_of(system_sources(), _ARCHES.get(platform.machine(), ""))
        return replace(archive, security=self._security or archive.security)

    def _has_keys_of(self, codename: str) -> bool:
        if self._keyring:
            return True
        return _KEYRING.exists() and any(KEYRINGS.glob(f"debian-archive-{codename}-*"))


def _compress(tar: Path, out: Path, progress: Progress) -> None:
    """The tar's bytes as one zstd stream; ``progress`` goes from 90 to 100."""
    size, done = max(tar.stat().st_size, 1), 0
    with tar.open("rb") as source, zstd.open(out, "wb", level=_LEVEL) as target:
        while data := source.read(_STEP):
            target.write(data)
            done += len(data)
            progress(90 + 10 * done // size, 100)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise as_nexus_error(error) from error


def _check_keyring(text: str) -> str:
    if not text.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----"):
        raise ValueError("This must be an armored OpenPGP public key.")
    return f"{text}\n"


TYPE = ProviderType(
    "debian",
    "Debian",
    "Made here with mmdebstrap from the packages of a mirror.",
    DebianProvider,
    (
        Field(
            "mirror",
            "Mirror",
            "As http://HOST/debian. Empty: the one that this system's apt uses.",
            check=check_mirror,
        ),
        Field(
            "security_mirror",
            "Mirror of security updates",
            "As http://HOST/debian-security. Empty: this system's; none beside a mirror above.",
            check=check_mirror,
        ),
        Field(
            "keyring",
            "Keyring",
            "Armored OpenPGP keys. Empty: Debian's archive keyring of this system.",
            multiline=True,
            check=_check_keyring,
        ),
    ),
)
