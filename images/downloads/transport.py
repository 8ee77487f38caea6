"""One HTTP answer at a time: redirects followed by the rules, failures told apart.

Everything that a server or the way to it can do wrong leaves here as ``Failed`` (the same
request may work in a moment) or as an error for people (it will not).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpcore2

from images.downloads.addresses import (
    Address,
    CheckedBackend,
    PrivateAddress,
    TooSlow,
    parse_url,
    redirected,
    refused,
)
from nexus_site.core.errors import Broken, Invalid, NexusError, NotFound, Retryable

REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Statuses that a moment may cure.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_RETRY_AFTER = 60.0
USER_AGENT = "Nexus (self-hosted microVMs)"


@dataclass(frozen=True)
class Policy:
    """How patient and how generous a download is."""

    max_bytes: int = 32 << 30
    max_redirects: int = 5
    connect_timeout: float = 15.0
    read_timeout: float = 30.0  # seconds in which nothing comes
    minimum_rate: float = 2048.0  # bytes a second, over ``window`` seconds of waiting
    window: float = 60.0
    attempts: int = 5  # in a row that bring nothing new
    pause: float = 0.5  # seconds before the second attempt; doubled for each further one
    public_only: bool = False  # the URL is a server's word, not an operator's: nothing private


DEFAULT = Policy()


class Failed(Exception):
    """The request failed for a reason that may pass; ``error`` says it to people."""

    def __init__(self, error: NexusError, retry_after: float = 0.0) -> None:
        super().__init__(error.text)
        self.error, self.retry_after = error, retry_after


@dataclass(frozen=True)
class Answer:
    """A server's answer, whose body is read from ``body`` while the block lasts."""

    address: Address
    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]

    @property
    def length(self) -> int | None:
        """Bytes in the body, where the server says."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() else None


@contextmanager
def open_url(url: str, headers: Mapping[str, str], policy: Policy = DEFAULT) -> Iterator[Answer]:
    """The answer to a GET after at most ``policy.max_redirects``: 200, 206 or 416.

    Raises ``Failed``; ``NotFound`` for 404 and 410; ``Broken`` for other answers and for
    redirects that must not be followed; ``Invalid`` for a URL that is none.
    """
    try:
        start = here = before = parse_url(url)
    except ValueError as error:
        raise Invalid(str(error), code="url-invalid") from error
    for _ in range(policy.max_redirects + 1):
        try:
            anywhere = here.origin == start.origin and not policy.public_only
            with _ask(here, headers, policy, anywhere=anywhere) as answer:
                if answer.status not in REDIRECTS:
                    _check_status(answer)
                    yield answer
                    return
                location = answer.headers.get("location", "")
        except PrivateAddress as private:
            reason = f"The address {private} is not a public one."
            raise refused(before, here.shown, reason) from private
        before, here = here, redirected(here, location)
    raise Broken(
        f"{start.host} redirects more than {policy.max_redirects} times.",
        detail=f"The last one leads to {here.shown}",
        hint="Configure the URL at which the file really is.",
        code="redirects",
    )


@contextmanager
def _ask(
    address: Address, headers: Mapping[str, str], policy: Policy, *, anywhere: bool
) -> Iterator[Answer]:
    """The answer of this one server, and its failures as ``Failed``."""
    backend = CheckedBackend(anywhere, policy.minimum_rate, policy.window)
    url = httpcore2.URL(
        scheme=address.scheme, host=address.host, port=address.port, target=address.target
    )
    fields: list[tuple[bytes | str, bytes | str]] = [
        ("Host", address.host_header),
        ("User-Agent", USER_AGENT),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        *headers.items(),
    ]
    with _failures(address), httpcore2.ConnectionPool(network_backend=backend) as pool:
        stream = pool.stream("GET", url, headers=fields, extensions={"timeout": _timeouts(policy)})
        with stream as response:
            found = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            }
            yield Answer(address, response.status, found, response.iter_stream())


@contextmanager
def _failures(address: Address) -> Iterator[None]:
    """What httpcore2 raises, in words and told apart by whether it may pass."""
    try:
        yield
    except TooSlow as error:
        raise _failed(address, f"{address.host} is too slow: {error}.", "download-slow") from error
    except httpcore2.TimeoutException as error:
        raise _failed(address, f"{address.host} does not answer in time.", "timeout") from error
    except httpcore2.ConnectError as error:
        if _is_about_identity(error):
            raise Broken(
                f"The identity of {address.host} cannot be verified: {error}",
                detail=address.shown,
                hint="Its certificate must be valid, and its issuer known to this machine.",
                code="certificate",
            ) from error
        text = f"{address.host} cannot be reached: {error}"
        raise _failed(address, text, "unreachable") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        text = f"The connection to {address.host} broke: {error or type(error).__name__}"
        raise _failed(address, text, "connection-lost") from error


def _is_about_identity(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def _failed(address: Address, text: str, code: str, retry_after: float = 0.0) -> Failed:
    hint = "Look at this machine's network and at the server, then try again."
    return Failed(Retryable(text, detail=address.shown, hint=hint, code=code), retry_after)


def _check_status(answer: Answer) -> None:
    status, host = answer.status, answer.address.host
    if status in (200, 206, 416):
        return
    if status in PASSING:
        seconds = answer.headers.get("retry-after", "")
        retry_after = float(seconds) if seconds.isascii() and seconds.isdigit() else 0.0
        text = f"{host} answers {status}."
        raise _failed(answer.address, text, "server-error", min(retry_after, _MAX_RETRY_AFTER))
    if status in (404, 410):
        raise NotFound(
            f"{host} has no such file: {answer.address.shown}",
            hint="The version may be gone, or the configured URL be wrong.",
            code="download-not-found",
        )
    raise Broken(
        f"{host} answers {status} instead of the file.",
        detail=answer.address.shown,
        hint="It wants more than a plain request, or the configured URL is wrong.",
        code="download-refused",
    )


def _timeouts(policy: Policy) -> dict[str, float]:
    read = min(policy.read_timeout, policy.window)
    connect = policy.connect_timeout
    return {"connect": connect, "read": read, "write": read, "pool": connect}
