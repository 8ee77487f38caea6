"""Where this system's apt gets packages from: ``sources.list`` and ``sources.list.d``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nexus_site.core.errors import Invalid

APT_DIRECTORY = Path("/etc/apt")

_ONE_LINE = re.compile(
    r"(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^]]*)\]\s+)?"
    r"(?P<uri>[^\s[]\S*)\s+(?P<suite>\S+)(?P<components>(?:\s+\S+)*)\s*\Z"
)
_PART_NAME = re.compile(r"[A-Za-z0-9_.-]+\.(?:list|sources)\Z")  # apt ignores all others
_FIELD = re.compile(r"([!-,.-9;-~][!-9;-~]*):(.*)\Z")  # no colon in a name, no dash before it
_OFF = frozenset({"no", "false", "without", "off", "disable", "0"})
_MIRROR_LIST = "mirror+file:"


@dataclass(frozen=True)
class Source:
    """One place of binary packages. ``signed_by`` is empty, file names, or a key as text;
    ``architectures`` are Debian's names, empty for all."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""
    architectures: tuple[str, ...] = ()


def system_sources(directory: Path = APT_DIRECTORY) -> list[Source]:
    """What the files below ``directory`` say, in apt's order; nothing where there is no apt.

    Raises ``Invalid`` that names file and line for what apt would not take either.
    """
    parts = directory / "sources.list.d"
    named = (path for path in parts.glob("*") if _PART_NAME.match(path.name))
    files = [directory / "sources.list", *sorted(named, key=lambda path: path.name)]
    sources: list[Source] = []
    for file in files:
        if file.is_file():
            read = parse_deb822 if file.suffix == ".sources" else parse_one_line
            sources += read(file.read_text(encoding="utf-8", errors="replace"), str(file))
    return sources


def parse_one_line(text: str, name: str = "sources.list") -> list[Source]:
    """The sources of ``deb [options] URI suite component…`` lines."""
    sources = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if not line or re.match(r"deb(-src)?\s+(\[.*?\]\s+)?cdrom:", line):
            continue
        found = _ONE_LINE.match(line)
        if found is None:
            raise _malformed(name, number)
        if found["type"] == "deb":
            options = dict(
                re.findall(r"([^\s=+-]+(?:-[^\s=+-]+)*)[+-]?=(\S*)", found["options"] or "")
            )
            sources.append(
                Source(
                    _resolved(found["uri"]),
                    (found["suite"],),
                    tuple(found["components"].split()),
                    options.get("signed-by", ""),
                    tuple(filter(None, options.get("arch", "").split(","))),
                )
            )
    return sources


def parse_deb822(text: str, name: str = "debian.sources") -> list[Source]:
    """The sources of stanzas with ``Types``, ``URIs``, ``Suites`` and ``Components``."""
    sources = []
    for number, fields in _stanzas(text, name):
        if (
            fields.get("enabled", "yes").lower() in _OFF
            or "deb" not in fields.get("types", "").split()
        ):
            continue
        if not fields.get("uris") or not fields.get("suites"):
            raise _malformed(name, number)
        sources += [
            Source(
                _resolved(uri),
                tuple(fields["suites"].split()),
                tuple(fields.get("components", "").split()),
                fields.get("signed-by", ""),
                tuple(fields.get("architectures", "").split()),
            )
            for uri in fields["uris"].split()
        ]
    return sources


def _stanzas(text: str, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The stanzas' fields by lower-case name, each with the number of its first line."""
    fields: dict[str, str] = {}
    start, last = 1, ""
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield start, fields
            fields, last = {}, ""
        elif line[0] in " \t" and last:
            fields[last] = f"{fields[last]}\n{line.strip()}".strip()
        else:
            found = _FIELD.match(line)
            if found is None or found[1].lower() in fields:
                raise _malformed(name, number)
            start = start if fields else number
            last = found[1].lower()
            fields[last] = found[2].strip()


def _resolved(uri: str) -> str:
    """The URI without a slash at its end; the first of a list of mirrors where it names one."""
    if uri.startswith(_MIRROR_LIST):
        listed = Path(urlsplit(uri).path)
        lines = listed.read_text(errors="replace").split("\n") if listed.is_file() else []
        mirrors = [words[0] for words in map(str.split, lines) if words and "://" in words[0]]
        uri = mirrors[0] if mirrors else uri
    return uri.rstrip("/")


def _malformed(name: str, number: int) -> Invalid:
    return Invalid(
        f"Line {number} of {name} is not what apt understands.",
        hint="Put it right, or name a mirror in the provider's configuration.",
        code="apt-sources",
    )
