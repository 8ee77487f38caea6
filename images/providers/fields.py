"""Checks of what operators write into a provider's configuration."""

from __future__ import annotations

import re

from images.downloads import parse_url

MAX_WORD = 40
_WORD = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+~-]{{0,{MAX_WORD - 1}}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
ARCHES = ("x86_64", "aarch64")


def check_url(text: str) -> str:
    """An http or https URL without credentials."""
    parse_url(text)
    return text


def check_base_url(text: str) -> str:
    """A URL that paths are appended to."""
    if "?" in check_url(text):
        raise ValueError("Paths are appended to this URL: it must have no query.")
    return text.rstrip("/")


def check_sha256(text: str) -> str:
    if not _SHA256.fullmatch(text.lower()):
        raise ValueError("A SHA-256 has 64 hexadecimal digits.")
    return text.lower()


def check_word(text: str) -> str:
    """A distribution's name or version, which becomes a part of file names."""
    if not _WORD.fullmatch(text):
        raise ValueError("Up to 40 letters, digits and . _ + ~ -, beginning with one of the first.")
    return text


def check_distro(text: str) -> str:
    return check_word(text).lower()


def check_arch(text: str) -> str:
    if text not in ARCHES:
        raise ValueError(f"This must be one of: {', '.join(ARCHES)}.")
    return text
