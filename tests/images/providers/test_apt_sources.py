"""What the files of apt say, and which of their sources is Debian's archive."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.providers.apt_sources import Source, parse_deb822, parse_one_line, system_sources
from images.providers.debian_archive import Archive, archive_of, check_mirror
from nexus_site.core.errors import Invalid

MIRROR = "http://mirror.example/debian"
SECURITY = "http://mirror.example/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

STANZAS = f"""\
# the first
Types: deb deb-src
URIs: {MIRROR}/
Suites: bookworm bookworm-updates
Components: main contrib
# in the middle
Signed-By: {KEYRING}


types: deb
uris: {SECURITY} http://other.example/debian-security
suites: bookworm-security
components:
 main
 contrib
Architectures: amd64 arm64
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFit2ioBEADhWpZ8/wvZ6hUTiXOwQHXMAlaFHcPH9hAtr4F1y2+OYdbtMuth
 -----END PGP PUBLIC KEY BLOCK-----
"""


def test_stanzas_are_read_with_all_their_lines() -> None:
    main, *security = parse_deb822(STANZAS)
    assert main == Source(
        MIRROR, ("bookworm", "bookworm-updates"), ("main", "contrib"), signed_by=KEYRING
    )
    assert [source.uri for source in security] == [SECURITY, "http://other.example/debian-security"]
    assert security[0].components == ("main", "contrib")
    assert security[0].architectures == ("amd64", "arm64")
    assert security[0].signed_by.splitlines()[1] == "."


@pytest.mark.parametrize("field", ["Enabled: no", "Enabled: False", "types: deb-src"])
def test_stanzas_that_give_no_packages_are_left_out(field: str) -> None:
    types = "" if field.startswith("types") else "Types: deb\n"
    assert parse_deb822(f"{types}URIs: {MIRROR}\nSuites: sid\nComponents: main\n{field}\n") == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Types: deb\nURIs http://x\n", 2),
        (" continued\n", 1),
        (f"\n\nTypes: deb\nURIs: {MIRROR}\n", 3),
        ("Types: deb\nTypes: deb\n", 2),
        ("-bad: field\n", 1),
    ],
)
def test_a_malformed_stanza_is_named_by_its_line(text: str, line: int) -> None:
    with pytest.raises(Invalid, match=f"Line {line} of x.sources is not what apt understands"):
        parse_deb822(text, "x.sources")


def test_lines_are_read_with_their_options() -> None:
    text = f"""\
# a comment
deb {MIRROR} bookworm main contrib # and another
deb-src {MIRROR} bookworm main
deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main
   deb  [ arch=amd64,arm64 signed-by={KEYRING} trusted=no ]  {SECURITY}/ bookworm-security   main

deb http://flat.example/ ./
"""
    assert parse_one_line(text) == [
        Source(MIRROR, ("bookworm",), ("main", "contrib")),
        Source(SECURITY, ("bookworm-security",), ("main",), KEYRING, ("amd64", "arm64")),
        Source("http://flat.example", ("./",), ()),
    ]


@pytest.mark.parametrize("line", ["deb", "deb http://x", "rpm http://x sid main", "deb [a=b http:"])
def test_a_malformed_line_is_named(line: str) -> None:
    with pytest.raises(Invalid, match=r"Line 2 of x\.list"):
        parse_one_line(f"\n{line}\n", "x.list")


def test_all_files_are_read_in_the_order_of_apt(tmp_path: Path) -> None:
    assert system_sources(tmp_path) == []
    parts = tmp_path / "sources.list.d"
    (parts / "directory.list").mkdir(parents=True)
    mirrors = tmp_path / "mirrors"
    mirrors.write_text(f"# the nearest\n{MIRROR}/\thttp\n{SECURITY}\n")
    for path, uri in (
        (parts / "b.list", "http://b.example"),
        (tmp_path / "sources.list", "http://first.example"),
        (parts / "off.list.disabled", "nonsense"),
        (parts / "an odd name.list", "nonsense"),
    ):
        path.write_text(f"deb {uri} sid main\n")
    stanza = f"Types: deb\nURIs: mirror+file:{mirrors}\nSuites: sid\nComponents: main\n"
    (parts / "a.sources").write_text(stanza)
    uris = [source.uri for source in system_sources(tmp_path)]
    assert uris == ["http://first.example", MIRROR, "http://b.example"]


def test_debian_is_told_from_what_is_made_for_it() -> None:
    sources = [
        Source("http://tools.example/apt", ("bookworm",), ("main",), "/etc/apt/keyrings/tools.gpg"),
        Source("http://sql.example/apt", ("bookworm-pgdg",), ("main",)),
        Source("http://boxes.example/linux/debian", ("bookworm",), ("stable",)),
        Source("http://vendor.example", ("bookworm",), ("main",)),
        Source("http://small.example/debian", ("bookworm",), ("main",), "", ("i386",)),
        Source("http://me:secret@private.example/debian", ("bookworm",), ("main",)),
        Source("file:///srv/debian", ("bookworm",), ("main",)),
        Source(MIRROR, ("bookworm", "bookworm-updates"), ("main",)),
        Source(SECURITY, ("bookworm-security",), ("main",)),
    ]
    assert archive_of(sources, "amd64") == Archive(MIRROR, SECURITY)
    assert archive_of(sources[:-1], "amd64") == Archive(MIRROR, "")
    signed = Source("http://signed.example", ("oldstable",), ("main",), KEYRING)
    assert archive_of([*sources, signed], "amd64").uri == signed.uri


def test_a_system_that_is_no_debian_is_told_what_to_do() -> None:
    ubuntu = Source("http://mirror.example/ubuntu", ("noble",), ("main", "universe"))
    with pytest.raises(Invalid, match="apt has no mirror of Debian") as caught:
        archive_of([ubuntu], "amd64")
    assert caught.value.code == "no-mirror"
    assert "Set the mirror" in caught.value.hint


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("mirror.example/debian", "address as http"),
        ("ftp://mirror.example/debian", "address as http"),
        ("http:///debian", "address as http"),
        ("http://me:secret@mirror.example/debian", "would be in every image"),
        ("http://mirror.example/debian sid main", "no query, fragment, space"),
        ("http://mirror.example/debian?x=1", "no query, fragment, space"),
    ],
)
def test_a_mirror_that_cannot_be_one_is_refused(uri: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_mirror(uri)
    assert check_mirror("https://mirror.example/debian/") == "https://mirror.example/debian"
