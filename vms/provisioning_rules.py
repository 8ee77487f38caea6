"""What a VM may be given: each rule in the words of people."""

from __future__ import annotations

import ipaddress
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence

from nexus_site.core.errors import Invalid

MAX_SETTINGS = 48 * 1024  # bytes of JSON: what one request to the agent holds, with room
MAX_HOSTS = 1000
MAX_SERVERS = 3  # more, a resolver does not ask
MAX_SCRIPT = 64 * 1024  # bytes
MAX_FILE = 1 << 20
MAX_FILES_TOGETHER = 16 << 20
MAX_FILES = 200
MAX_PATH = 1000

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
_USER = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*(:[A-Za-z0-9_.][A-Za-z0-9_.-]*)?")
_MODE = re.compile(r"0?[0-7]{3,4}")


def check_variables(values: Mapping[str, str]) -> None:
    """Names that a shell takes; values without null characters. Never tells a value."""
    for name, value in values.items():
        if not _VARIABLE.fullmatch(name):
            raise _invalid(
                f"“{name[:80]}” cannot be the name of a variable.",
                "bad-variable",
                hint="Letters, digits and _, not beginning with a digit.",
            )
        if "\0" in value or not _is_text(value):
            raise _invalid(f"The value of {name} is not text.", "bad-variable")


def check_apart(env: Iterable[str], secret_env: Iterable[str]) -> None:
    """No variable is both plain and secret."""
    if both := sorted({*env} & {*secret_env}):
        raise _invalid(
            f"{both[0]} is among the variables and among the secret ones.",
            "bad-variable",
            hint="Take it out of one of them.",
        )


def check_hosts(hosts: Mapping[str, str]) -> None:
    """Host names, each with one IPv4 or IPv6 address."""
    if len(hosts) > MAX_HOSTS:
        raise _invalid(f"There are more than {MAX_HOSTS} host names.", "bad-hosts")
    for name, address in hosts.items():
        if not _HOST.fullmatch(name) or len(name) > 253:
            raise _invalid(f"“{name[:80]}” cannot be a host name.", "bad-hosts")
        try:
            ipaddress.ip_address(address)
        except ValueError:
            wrong = True
        else:
            wrong = "%" in address
        if wrong:
            raise _invalid(
                f"“{address[:80]}” is no IP address; {name} needs one.", "bad-hosts"
            ) from None


def check_dns(servers: Sequence[str]) -> None:
    """At most three IPv4 addresses."""
    if len(servers) > MAX_SERVERS:
        raise _invalid(f"A resolver asks at most {MAX_SERVERS} name servers.", "bad-dns")
    for server in servers:
        try:
            ipaddress.IPv4Address(server)
        except ValueError:
            raise _invalid(f"“{server[:80]}” is no IPv4 address.", "bad-dns") from None


def check_settings(*parts: Mapping[str, str], secret_size: int) -> None:
    """All variables and host names together fit into what the agent takes at once.

    ``secret_size``: about how many bytes the secret variables are.
    """
    if sum(len(json.dumps(part)) for part in parts) + secret_size > MAX_SETTINGS:
        raise _invalid(
            f"The variables and host names are more than {MAX_SETTINGS // 1024} KiB together.",
            "settings-too-large",
            hint="Put what is large into a file.",
        )


def check_script(script: str) -> None:
    """At most 64 KiB of text."""
    if len(script.encode("utf-8", "surrogatepass")) > MAX_SCRIPT:
        raise _invalid(
            f"The script has more than {MAX_SCRIPT // 1024} KiB.",
            "script-too-large",
            hint="Give a file what it needs, and let the script use that.",
        )
    if "\0" in script or not _is_text(script):
        raise _invalid("The script is not text.", "bad-script")


def check_file(path: str, mode: int, user: str, size: int) -> None:
    """An absolute path in its plain form, permissions, ``name`` or ``name:group``, a size."""
    plain = path.startswith("/") and path != "/" and posixpath.normpath(path) == path
    if not plain or path.startswith("//") or not path.isprintable() or len(path) > MAX_PATH:
        raise _invalid(
            f"“{path[:80]!s}” cannot be a file's path.",
            "bad-path",
            hint="An absolute path, such as /etc/app.conf, without . and ..",
        )
    if not 0 <= mode <= 0o7777:
        raise _invalid(f"{path} cannot have the mode {mode:o}.", "bad-mode")
    if user and (len(user) > 100 or not _USER.fullmatch(user)):
        raise _invalid(
            f"{path} cannot belong to “{user[:80]}”.", "bad-user", hint="name, uid or name:group."
        )
    if size > MAX_FILE:
        raise _invalid(
            f"{path} has more than {MAX_FILE >> 20} MiB.",
            "file-too-large",
            hint="Let the first-boot script fetch it, or copy it once the VM is ready.",
        )


def check_files_together(sizes: Iterable[int]) -> None:
    """What all files of a VM may be together."""
    found = list(sizes)
    if len(found) > MAX_FILES:
        raise _invalid(f"A VM is given at most {MAX_FILES} files.", "too-many-files")
    if sum(found) > MAX_FILES_TOGETHER:
        raise _invalid(
            f"The files are more than {MAX_FILES_TOGETHER >> 20} MiB together.",
            "files-too-large",
            hint="Put them into the image, or on a drive.",
        )


def mode_of(text: str) -> int:
    """Permissions as people write them: 644, 0600. Raises ``Invalid``."""
    if not _MODE.fullmatch(text):
        raise _invalid(f"“{text[:20]}” is no mode.", "bad-mode", hint="In octal, such as 0644.")
    return int(text, 8)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invalid(text: str, code: str, hint: str = "") -> Invalid:
    return Invalid(text, hint=hint, code=code)
