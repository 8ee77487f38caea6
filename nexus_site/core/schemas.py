"""What the JSON API of the ground floor takes and gives.

IDs are 13 letters, times ISO 8601 in UTC, sizes carry their unit in the name. What goes
out is named after the thing, what comes in after the act.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from django.db.models import TextChoices
from ninja import Field, Schema
from pydantic import BeforeValidator, ConfigDict, WithJsonSchema

from nexus_site.core.ids import ID_LENGTH, encode
from nexus_site.core.models import Operation, Token

T = TypeVar("T")


def _letters(value: object) -> object:
    return encode(value) if isinstance(value, int) else value


ID = Annotated[
    str,
    BeforeValidator(_letters),
    Field(min_length=ID_LENGTH, max_length=ID_LENGTH, examples=["aebagbafaydqq"]),
]


def listed(choices: type[TextChoices]) -> WithJsonSchema:
    """The schema of ``choices`` with its values in place.

    Left to itself it would be shared by the name of its class, and several are a ``State``.
    """
    return WithJsonSchema({"type": "string", "enum": choices.values})


OperationState = Annotated[Operation.State, listed(Operation.State)]


#: For the OpenAPI document: the body is a file, as it is.
BINARY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class Input(Schema):
    """A request body; a field that it does not know is an error, not silence."""

    model_config = ConfigDict(extra="forbid")


class Ref(Schema):
    """Another resource: its ID, and its name for people."""

    id: ID
    name: str


class Page(Schema, Generic[T]):
    """A part of a list; ``next_cursor`` asks for the next part, null means the end."""

    items: list[T]
    next_cursor: str | None


class ChangeQuery(Schema):
    """How a change is to be carried out."""

    dry_run: bool = Field(False, description="Answer with the plan and change nothing.")
    wait: float = Field(0, ge=0, le=60, description="Seconds to wait for the end before answering.")


class PlanStep(Schema):
    name: str
    title: str
    action: Literal["run", "skip"]
    note: str


class Plan(Schema):
    """The answer to a dry run."""

    dry_run: Literal[True]
    title: str
    steps: list[PlanStep]


class FieldProblem(Schema):
    field: str
    message: str


class Problem(Schema):
    """An error, as RFC 9457 has it; ``code`` is stable, ``detail`` and ``hint`` are for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    evidence: str = Field("", description="Such as the last lines of a command's output.")
    errors: list[FieldProblem] = Field([], description="What is wrong with which field.")


class ErrorRecord(Schema):
    """Why an operation, a step or a build failed."""

    kind: str = ""
    code: str
    text: str
    detail: str
    hint: str


class StepOut(Schema):
    name: str
    title: str
    state: Literal["pending", "running", "done", "skipped", "failed", "undone"]
    progress: float
    note: str
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None
    error: ErrorRecord | None


class Subject(Schema):
    """What an operation or an event is about; ``id`` is null until that exists."""

    kind: str
    id: ID | None
    name: str


class OperationSummary(Schema):
    """An operation without its steps, as lists have it."""

    id: ID
    kind: str
    title: str
    state: OperationState
    actor: str
    subject: Subject | None
    parent_id: ID | None
    progress: float = Field(description="0.0 to 1.0")
    current_step: str | None
    note: str
    attempt: int
    cancel_requested: bool
    result: dict[str, Any] = Field(description="What it made: kind of thing to ID.")
    error: ErrorRecord | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seconds: float | None

    @staticmethod
    def resolve_subject(operation: Operation) -> dict[str, Any] | None:
        return subject_of(operation)

    @staticmethod
    def resolve_current_step(operation: Operation) -> str | None:
        step = operation.current_step
        return step["name"] if step else None

    @staticmethod
    def resolve_error(operation: Operation) -> dict[str, Any] | None:
        return operation.error or None


class ChildOperation(OperationSummary):
    """An operation that another one runs as a part of itself."""

    steps: list[StepOut]


class OperationOut(ChildOperation):
    children: list[ChildOperation]


class EventOut(Schema):
    seq: int
    at: datetime
    kind: str
    actor: str
    subject: Subject | None
    operation_id: ID | None
    data: dict[str, Any]

    @staticmethod
    def resolve_subject(event: Any) -> dict[str, Any] | None:
        return subject_of(event)


class EventPage(Schema):
    """Events, oldest first. Ask next with ``after`` set to ``next_after``."""

    items: list[EventOut]
    next_after: int
    last_seq: int = Field(description="The number of the newest event there is.")


class TokenOut(Schema):
    """A token, without its secret, which is not kept."""

    id: ID
    name: str
    scope: Token.Scope
    prefix: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class NewToken(TokenOut):
    """A token just made; its secret is shown this once."""

    secret: str


class CreateToken(Input):
    name: str = Field(min_length=1, max_length=63)
    scope: Token.Scope = Token.Scope.OPERATE
    expires_in_days: int | None = Field(None, ge=1, le=3650)


class SignInLink(Schema):
    """A link that signs a browser in, once, within 15 minutes."""

    url: str


class TextPage(Schema):
    """A piece of a log, from byte ``offset`` to ``next_offset`` of ``size``."""

    text: str
    offset: int
    next_offset: int
    size: int


def subject_of(row: Any) -> dict[str, Any] | None:
    """The subject of an operation or an event; None when it has none."""
    if not row.subject_kind:
        return None
    return {"kind": row.subject_kind, "id": row.subject_id, "name": row.subject_name}
