"""YAML that strangers wrote, read without believing it, and YAML that people like to read.

Every value is text, whatever it looks like: ``3.20`` is not 3.2, ``0644`` is not 420 and ``NO``
is not false. Tags, anchors and aliases are refused, and documents are bounded in size, depth and
number of values, so that reading one costs little whatever it says.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from nexus_site.core.errors import Invalid

MAX_BYTES = 2 << 20
MAX_VALUES = 10_000
MAX_DEPTH = 8

#: What YAML takes as it is, without its line breaks other than ``\n``.
_PRINTABLE = re.compile(
    "[\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]*"
)

Location = tuple[int | str, ...]
#: The parser of libyaml where PyYAML has it: ten times faster, the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(content: str | bytes) -> tuple[Any, dict[Location, int]]:
    """The one document in ``content`` (text, lists, mappings), and the line of each value.

    Raises ``Invalid`` that names the line.
    """
    if len(content) > MAX_BYTES:
        refuse(f"It is longer than {MAX_BYTES >> 20} MiB.")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        text.encode()
    except UnicodeError as error:
        refuse(f"It is not text in UTF-8: {error.reason}.")  # type: ignore[attr-defined]
    reader = _Reader(text)
    try:
        return reader.document(), reader.lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(part for part in (error.context, error.problem) if part)
        refuse(f"{words or 'it is not YAML'}.", mark.line + 1 if mark else None)
    except yaml.YAMLError as error:
        refuse(f"It is not YAML: {getattr(error, 'reason', '') or 'a character is wrong'}.")


def refuse(reason: str, line: int | None = None) -> NoReturn:
    """Raise the ``Invalid`` of a document."""
    where = f"Line {line}: " if line else ""
    raise Invalid(
        f"The YAML cannot be used. {where}{reason}",
        code="yaml-invalid",
        extra={"line": line} if line else {},
    )


class _Reader:
    """Makes a document of the parser's events, with nothing between that could act on a tag."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Location, int] = {}
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)

    def document(self) -> Any:
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            refuse("There is nothing in it.")
        value = self._value(next(self._events), ())
        next(self._events)  # the document's end
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            refuse("A second document begins; there may be one.", _line(more))
        return value

    def _value(self, event: Any, location: Location) -> Any:
        line = self.lines[location] = _line(event)
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            refuse("Anchors and aliases (&, *) are not taken here.", line)
        if event.tag:
            refuse("Tags (!) are not taken here.", line)
        if len(self.lines) > MAX_VALUES:
            refuse(f"There are more than {MAX_VALUES} values.", line)
        if len(location) > MAX_DEPTH:
            refuse(f"Values are nested more than {MAX_DEPTH} deep.", line)
        if isinstance(event, yaml.ScalarEvent):
            return event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(location)
        return self._mapping(location)

    def _sequence(self, location: Location) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*location, len(found))))
        return found

    def _mapping(self, location: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            if key in found:
                refuse(f"“{key[:80]}” is there twice.", _line(event))
            found[key] = self._value(next(self._events), (*location, key))
            self.lines[(*location, key)] = _line(event)
        return found

    @staticmethod
    def _key(event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
            refuse("A name is plain text.", _line(event))
        return str(event.value)


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


class _Dumper(yaml.SafeDumper):
    """Block style with lists indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    escaped = "\n" in text or not _PRINTABLE.fullmatch(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if escaped else None)


_Dumper.add_representer(str, _text)


def write(document: dict[str, Any]) -> str:
    """``document`` as YAML in the order of its keys.

    Text of several lines is put in as it is, by us: PyYAML looks at each character of it several
    times and would escape all of it for a tab.
    """
    blocks: list[str] = []
    mark = f"block-{secrets.token_hex(8)}-"
    text = yaml.dump(
        _set_aside(document, mark, blocks),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=1 << 20,
    )
    place = re.compile(rf"^(?P<indent> *)(?P<before>.*){mark}(?P<number>\d+)$", re.MULTILINE)
    return place.sub(lambda found: _block(found, blocks), text)


def reads_well(text: str) -> bool:
    """Whether ``text`` has several lines and can stand in a document as it is."""
    first = text.lstrip("\n")
    return "\n" in first and first[0] not in " \t" and bool(_PRINTABLE.fullmatch(text))


def _set_aside(value: Any, mark: str, blocks: list[str]) -> Any:
    """``value`` with marks in place of text that reads well."""
    if isinstance(value, dict):
        return {name: _set_aside(item, mark, blocks) for name, item in value.items()}
    if isinstance(value, list):
        return [_set_aside(item, mark, blocks) for item in value]
    if isinstance(value, str) and reads_well(value):
        blocks.append(value)
        return f"{mark}{len(blocks) - 1}"
    return value


def _block(found: re.Match[str], blocks: list[str]) -> str:
    """A text under its key or dash, each line two deeper than that."""
    text = blocks[int(found["number"])]
    is_first_key = found["before"].startswith("- ") and found["before"] != "- "
    depth = len(found["indent"]) + (4 if is_first_key else 2)
    keep = "" if text.endswith("\n") else "-"
    keep = "+" if text.endswith("\n\n") else keep
    lines = text.removesuffix("\n").split("\n")
    shown = "\n".join(f"{' ' * depth}{line}" if line else "" for line in lines)
    return f"{found['indent']}{found['before']}|{keep}\n{shown}"
