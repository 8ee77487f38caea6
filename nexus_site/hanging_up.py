"""An answer that breaks off must look broken to its caller.

daphne answers an exception with status 500. Once an answer has begun it cannot: its own call
fails, the caller waits for ever, and daphne stops looking after all of its connections.
"""

from __future__ import annotations

from daphne.http_protocol import WebRequest  # type: ignore[import-untyped]

_answer_500 = WebRequest.handle_exception


def hang_up(request: WebRequest, exception: BaseException) -> None:
    """Close the connection of an answer that has begun; otherwise status 500, as ever."""
    if request._response_started:
        request.loseConnection()
    else:
        _answer_500(request, exception)


def install() -> None:
    """Have daphne do so in this process."""
    WebRequest.handle_exception = hang_up
