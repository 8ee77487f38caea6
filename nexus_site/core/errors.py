"""The errors that Nexus shows people.

Every failure a user can meet is one of six kinds. Each carries three texts:

- ``text``: what failed and why, one sentence, safe to show anyone allowed to ask;
- ``detail``: the evidence (a VMM's last lines, a command's output), may be long;
- ``hint``: what to do next.

This module is also the only map from a kind of error to an HTTP status and to an
exit code of ``nexusctl``; problem documents (RFC 9457) are made from ``problem()``.
"""

from __future__ import annotations

from typing import Any, ClassVar

MAX_DETAIL = 16_000


class NexusError(Exception):
    """Base of all errors with a text for people. Raise one of its six kinds."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "Something failed"
    default_code: ClassVar[str] = "failed"

    def __init__(
        self,
        text: str,
        *,
        detail: str = "",
        hint: str = "",
        code: str = "",
        extra: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.detail = detail[-MAX_DETAIL:]
        self.hint = hint
        self.code = code or self.default_code
        self.extra = extra or {}

    def problem(self) -> dict[str, Any]:
        """The RFC 9457 problem document: type, title, status, detail, code, hint and more."""
        document: dict[str, Any] = {
            "type": f"urn:nexus:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.text,
            "code": self.code,
        }
        if self.hint:
            document["hint"] = self.hint
        if self.detail:
            document["evidence"] = self.detail
        return document | self.extra

    def record(self) -> dict[str, str]:
        """The plain form kept in the database with an operation or a build."""
        return {
            "kind": type(self).__name__,
            "code": self.code,
            "text": self.text,
            "detail": self.detail,
            "hint": self.hint,
        }


class NotFound(NexusError):
    """What the user named does not exist (or is not theirs to see)."""

    status, exit_code, title, default_code = 404, 4, "Not found", "not-found"


class Conflict(NexusError):
    """The request is fine, the state of things forbids it now."""

    status, exit_code, title, default_code = 409, 5, "Conflict", "conflict"


class Invalid(NexusError):
    """The input breaks a rule; the text names the rule."""

    status, exit_code, title, default_code = 422, 1, "Invalid input", "invalid"


class Denied(NexusError):
    """Signed in, but not allowed; 401 (who are you?) is the auth layer's own answer."""

    status, exit_code, title, default_code = 403, 6, "Not allowed", "denied"


class Retryable(NexusError):
    """Failed for a passing reason: the same call may succeed later."""

    status, exit_code, title, default_code = 503, 1, "Try again later", "retryable"


class Broken(NexusError):
    """Something outside Nexus, or Nexus itself, does not work; trying again will not help."""

    status, exit_code, title, default_code = 500, 1, "Broken", "broken"


KINDS: dict[str, type[NexusError]] = {
    kind.__name__: kind for kind in (NotFound, Conflict, Invalid, Denied, Retryable, Broken)
}


def from_record(record: dict[str, str]) -> NexusError:
    """The error that ``record()`` wrote down."""
    kind = KINDS.get(record.get("kind", ""), Broken)
    return kind(
        record.get("text", "It failed."),
        detail=record.get("detail", ""),
        hint=record.get("hint", ""),
        code=record.get("code", ""),
    )


def as_nexus_error(error: BaseException) -> NexusError:
    """Any exception as one of the six kinds; unknown ones become ``Broken`` without a traceback."""
    if isinstance(error, NexusError):
        return error
    if isinstance(error, OSError):
        return _from_os_error(error)
    return Broken(
        f"Nexus met an error it did not expect: {type(error).__name__}: {error}",
        hint="The server log has the full story; please report it.",
        code="unexpected",
    )


def _from_os_error(error: OSError) -> NexusError:
    import errno

    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Retryable(
            f"The disk is full{where}.",
            hint="Free some space in the data directory, then try again.",
            code="disk-full",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Broken(
            f"Permission denied{where}.",
            hint="Nexus must own its data directory; check its owner and mode.",
            code="permission",
        )
    return Broken(f"The system said: {error.strerror or error}{where}", code="os-error")
