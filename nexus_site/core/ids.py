"""IDs: 63 random bits in the database, 13 letters of base32 everywhere else.

``NexusID`` is an ``int`` whose text form is the base32 string, so templates, URLs, logs
and the admin show ``aebagbafaydqq`` while the database keeps an INTEGER. JSON never
carries the integer: JavaScript would round it.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import models

from nexus_site.core.errors import Invalid, NotFound

ID_LENGTH = 13
ID_PATTERN = "[a-z2-7]{13}"
NAME_RULE = "A name has 1 to 63 lower-case letters, digits or hyphens, and no hyphen at either end."
#: Words that stand where a name could, in addresses of pages and of the API.
RESERVED = frozenset(
    {
        "available",
        "fetch",
        "from-image",
        "from-rootfs",
        "from-template",
        "import",
        "new",
        "preview",
        "prune",
        "providers",
    }
)
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class NexusID(int):
    """A 63-bit ID; ``str()`` and f-strings give its 13 letters."""

    def __str__(self) -> str:
        return encode(self)

    def __format__(self, spec: str) -> str:
        return format(encode(self), spec)

    def __repr__(self) -> str:
        return f"NexusID({encode(self)!r})"

    @classmethod
    def random(cls) -> NexusID:
        """A new ID from the system's randomness; never 0."""
        return cls(secrets.randbits(63) or 1)

    @classmethod
    def parse(cls, text: str) -> NexusID:
        """The ID written as ``text``. Raises ``ValueError`` unless it is a canonical one."""
        return cls(decode(text))


def encode(number: int) -> str:
    """RFC 4648 base32 of the 8 big-endian bytes, lower case, without padding: 13 letters."""
    return base64.b32encode(int(number).to_bytes(8, "big")).decode().rstrip("=").lower()


def decode(text: str) -> int:
    """The inverse of ``encode``; takes upper case too. Raises ``ValueError`` with the reason."""
    if len(text) != ID_LENGTH:
        raise ValueError(f"an ID has {ID_LENGTH} letters")
    if not re.fullmatch("[A-Za-z2-7]{13}", text):
        raise ValueError("an ID is made of the letters a-z and the digits 2-7")
    number = int.from_bytes(base64.b32decode(text.upper() + "==="), "big")
    if number >> 63:
        raise ValueError("an ID has 63 bits, this one has 64")
    if encode(number) != text.lower():
        raise ValueError("the last letter of this ID is not canonical")
    return number


def is_id(text: str) -> bool:
    """Whether ``text`` is a well-formed ID (of anything, existing or not)."""
    try:
        decode(text)
    except ValueError:
        return False
    return True


def check_name(name: str) -> str:
    """``name`` if it may name a resource; else ``Invalid`` that says which rule it breaks."""
    if is_id(name):
        raise Invalid(
            f"“{name}” cannot be a name: it has the form of an ID.",
            hint=f"An ID is {ID_LENGTH} characters of a-z and 2-7; choose another length.",
            code="name-is-id",
        )
    if name in RESERVED:
        raise Invalid(
            f"“{name}” cannot be a name: it means something else in addresses.",
            hint="Choose another one.",
            code="name-reserved",
        )
    if not _NAME.fullmatch(name):
        raise Invalid(f"“{name}” cannot be a name. {NAME_RULE}", code="name-rule")
    return name


def validate_name(name: str) -> None:
    """``check_name`` as a Django model validator."""
    try:
        check_name(name)
    except Invalid as error:
        raise ValidationError(error.text, code=error.code) from error


class NexusIDField(models.BigIntegerField):  # type: ignore[type-arg]
    """An INTEGER column that reads as ``NexusID`` and accepts integers and 13 letters."""

    _pyi_private_set_type: int | str | NexusID
    _pyi_private_get_type: NexusID

    def from_db_value(self, value: int | None, *_: object) -> NexusID | None:
        return None if value is None else NexusID(value)

    def to_python(self, value: Any) -> NexusID | None:
        if value is None or isinstance(value, NexusID):
            return value
        if isinstance(value, int):
            return NexusID(value)
        try:
            return NexusID.parse(str(value))
        except ValueError as error:
            raise ValidationError(f"“{value}” is not an ID: {error}.", code="invalid") from error

    def get_prep_value(self, value: Any) -> int | None:
        if isinstance(value, str):
            value = self.to_python(value)
        return None if value is None else int(value)

    def rel_db_type(self, connection: Any) -> str | None:
        return models.BigIntegerField().db_type(connection)


class IDConverter:
    """URL path converter ``<id:name>``: 13 letters to a ``NexusID`` and back."""

    regex = ID_PATTERN

    def to_python(self, value: str) -> NexusID:
        return NexusID.parse(value)

    def to_url(self, value: int | str) -> str:
        return value if isinstance(value, str) else encode(value)


M = TypeVar("M", bound=models.Model)


def resolve(rows: models.QuerySet[M], ref: str | int) -> M:
    """The row of ``rows`` that ``ref`` means: its ID first, then its name.

    Raises ``NotFound`` with the kind and the reference in its text.
    """
    row = None
    if isinstance(ref, int):
        row = rows.filter(pk=ref).first()
    elif is_id(ref):
        row = rows.filter(pk=decode(ref)).first()
    elif _has_name(rows.model) and _NAME.fullmatch(ref.lower()):
        row = rows.filter(name=ref.lower()).first()
    if row is None:
        kind = str(rows.model._meta.verbose_name)
        shown = encode(ref) if isinstance(ref, int) else ref[:80]
        raise NotFound(
            f"There is no {kind} “{shown}”.",
            hint=f"List what there is: nexusctl {_LISTS.get(kind, f'{kind.lower()} list')}",
            code=f"{kind.lower().replace(' ', '-')}-not-found",
        )
    return row


#: “rootfs list” shows what can be fetched, which has no IDs yet; snapshots are listed by VM.
_LISTS = {
    "rootfs": "rootfs installed",
    "kernel build": "kernel builds",
    "VM snapshot": "vm snapshots VM",
    "warm template": "warm list",
}


def _has_name(model: type[models.Model]) -> bool:
    return any(field.name == "name" for field in model._meta.get_fields())


def free_name(taken: Callable[[str], bool], base: str = "") -> str:
    """``base`` (or a generated adjective-animal name) that ``taken`` says is free."""
    if base and not taken(base):
        return base
    for _ in range(50):
        name = f"{base}-{secrets.token_hex(2)}" if base else readable_name()
        if not is_id(name) and not taken(name):
            return name
    return f"{base or readable_name()}-{secrets.token_hex(6)}"


def readable_name() -> str:
    """A generated name such as ``calm-otter``."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_ANIMALS)}"


_ADJECTIVES = (
    "able amber bold brave bright brisk calm clear clever cosy crisp daring eager early fair fast "
    "fond fresh gentle glad golden grand happy honest jolly keen kind light lively lucky mellow "
    "merry mild neat nimble noble patient plain polite proud quick quiet rapid ready rosy sharp "
    "shiny silent silver smart smooth snug solid spry steady still sturdy sunny swift tidy true "
    "vivid warm wise witty young zesty"
).split()
_ANIMALS = (
    "ant badger bat bear beaver bee bison boar bobcat camel cat cod condor crab crane crow deer "
    "dingo dolphin dove duck eagle eel elk falcon ferret finch fox frog gecko goat goose gull hare "
    "hawk heron horse ibex jackal jay kestrel kiwi koala lark lemur lion lizard llama lynx marten "
    "mole moose moth mouse newt ocelot orca osprey otter owl panda perch pika plover puffin quail "
    "rabbit raven robin salmon seal shrew sparrow squid stork swan tapir tern tiger toad trout "
    "viper vole walrus wasp weasel whale wolf wombat wren yak zebra"
).split()
