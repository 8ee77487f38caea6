"""Which server to talk to, and with which token."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click

from nexusctl.errors import DENIED, UNREACHABLE, Failure

DEFAULT_URL = "http://127.0.0.1:9600"
PATIENCE = 30.0
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Server:
    """``url`` has no slash at its end.

    ``patience`` is how many seconds an answer may take, on top of what the server is asked to wait.
    """

    url: str
    token: str
    patience: float = PATIENCE


def data_dir() -> Path:
    """Where the Nexus of this machine and user keeps its state."""
    if chosen := os.environ.get("NEXUS_DATA_DIR"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "nexus"


def find_server(url: str = "", token: str = "") -> Server:
    """The server named by options or environment, else the one of this machine.

    The token file of this machine is read for servers on this machine only: no other
    one is told it.
    """
    url = (url or os.environ.get("NEXUS_URL") or _local_url()).rstrip("/")
    host = _host(url)
    token = token or os.environ.get("NEXUS_TOKEN", "")
    if not token and host in LOOPBACK:
        token = _local_token()
    if not token:
        raise Failure(
            f"There is no token for {url}.",
            hint="Give one with --token or NEXUS_TOKEN.",
            exit_code=DENIED,
        )
    return Server(url, token, _patience())


def _patience() -> float:
    text = os.environ.get("NEXUS_TIMEOUT") or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86400:
        raise click.UsageError(f"NEXUS_TIMEOUT is no number of seconds: {text!r}.")
    return seconds


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 80)
    except ValueError:
        valid = False
    if not valid:
        raise click.UsageError(f"“{url}” is not the address of a server, such as {DEFAULT_URL}.")
    return parts.hostname or ""


def _local_url() -> str:
    try:
        running = json.loads((data_dir() / "run" / "nexusd.json").read_text())
        return str(running["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_URL


def _local_token() -> str:
    path = data_dir() / "token"
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Failure(
            f"There is no Nexus here: {path} cannot be read.",
            hint="Start one with ./nexus up, or say where it is with --server and --token "
            "or with NEXUS_DATA_DIR.",
            exit_code=UNREACHABLE,
        ) from error
