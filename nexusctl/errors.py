"""How the command says that something failed: text, evidence, hint, exit code."""

from __future__ import annotations

from typing import IO, Any

import click

from nexusctl import output

FAILED, USAGE, UNREACHABLE, NOT_FOUND, CONFLICT, DENIED, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130

#: HTTP status of a problem document → exit code; all others are ``FAILED``.
BY_STATUS = {401: DENIED, 403: DENIED, 404: NOT_FOUND, 409: CONFLICT}
#: Kind of error in an operation's record → exit code; all others are ``FAILED``.
BY_KIND = {"NotFound": NOT_FOUND, "Conflict": CONFLICT, "Denied": DENIED}


class Failure(click.ClickException):
    """Ends the command with a message on stderr and an exit code."""

    def __init__(
        self,
        text: str,
        *,
        detail: str = "",
        hint: str = "",
        exit_code: int = FAILED,
        code: str = "",
    ) -> None:
        super().__init__(text)
        self.detail = detail
        self.hint = hint
        self.code = code  # of the problem document
        self.exit_code = exit_code  # type: ignore[misc]  # click itself sets it so

    def show(self, file: IO[Any] | None = None) -> None:
        output.note(output.style(f"✗ {self.message}", fg="red"))
        for line in self.detail.splitlines():
            output.note(output.style(f"  {output.plain(line)}", dim=True))
        if self.hint:
            output.note(f"hint: {self.hint}")

    @classmethod
    def of_problem(cls, status: int, problem: dict[str, Any]) -> Failure:
        """What a problem document (RFC 9457) says."""
        return cls(
            problem.get("detail") or problem.get("title") or f"HTTP status {status}",
            detail=problem.get("evidence", ""),
            hint=problem.get("hint", ""),
            exit_code=BY_STATUS.get(status, FAILED),
            code=problem.get("code", ""),
        )

    @classmethod
    def of_operation(cls, operation: dict[str, Any]) -> Failure:
        """Why an operation failed, or that it was cancelled."""
        error = operation["error"] or {}
        return cls(
            error.get("text") or f"{operation['title']}: {operation['state']}",
            detail=error.get("detail", ""),
            hint=error.get("hint", ""),
            exit_code=BY_KIND.get(error.get("kind", ""), FAILED),
        )


class Unreachable(Failure):
    """No answer from the server: not running, wrong address, or it went away.

    ``began``: it went away in the middle of its answer.
    """

    def __init__(self, url: str, why: str, *, began: bool = False) -> None:
        text = f"Nexus does not answer at {url} ({why})."
        hint = "Start it with ./nexus up, or name the right server with --server."
        if began:
            text = f"Nexus at {url} broke its answer off."
            hint = "The server's log says why: run/nexusd.log in its data directory."
        super().__init__(text, hint=hint, exit_code=UNREACHABLE)
