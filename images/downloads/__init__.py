"""Files from the network: one way for all providers.

transport → checksum → signature → (decompressed) checksum → in place. See
``docs/decisions/0009-downloads.md``.
"""

from images.downloads.addresses import parse_url
from images.downloads.contents import check_content
from images.downloads.fetching import Downloaded, download, fetch_bytes
from images.downloads.partial import sweep_partials
from images.downloads.signatures import check_keyring, invalid_signature, verify_detached
from images.downloads.signed_text import verify_inline
from images.downloads.transport import DEFAULT, Policy

__all__ = [
    "DEFAULT",
    "Downloaded",
    "Policy",
    "check_content",
    "check_keyring",
    "download",
    "fetch_bytes",
    "invalid_signature",
    "parse_url",
    "sweep_partials",
    "verify_detached",
    "verify_inline",
]
