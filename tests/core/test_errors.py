"""Errors are for people: every kind has its status, its exit code and its problem document."""

from __future__ import annotations

import errno

import pytest

from nexus_site.core import errors


@pytest.mark.parametrize(
    ("kind", "status", "exit_code"),
    [
        (errors.NotFound, 404, 4),
        (errors.Conflict, 409, 5),
        (errors.Invalid, 422, 1),
        (errors.Denied, 403, 6),
        (errors.Retryable, 503, 1),
        (errors.Broken, 500, 1),
    ],
)
def test_each_kind_maps_to_http_and_exit_code(
    kind: type[errors.NexusError], status: int, exit_code: int
) -> None:
    error = kind("What.", detail="Evidence.", hint="Next.", extra={"more": 1})
    document = error.problem()
    assert (document["status"], kind.exit_code) == (status, exit_code)
    assert (document["detail"], document["hint"], document["evidence"]) == (
        "What.", "Next.", "Evidence.",
    )  # fmt: skip
    assert document["more"] == 1
    assert document["type"] == f"urn:nexus:problem:{error.code}"


def test_a_recorded_error_comes_back_as_it_was() -> None:
    error = errors.Conflict("What.", detail="Evidence.", hint="Next.", code="why")
    again = errors.from_record(error.record())
    assert type(again) is errors.Conflict
    assert again.record() == error.record()


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, errors.Retryable, "disk-full"),
        (errno.EDQUOT, errors.Retryable, "disk-full"),
        (errno.EACCES, errors.Broken, "permission"),
        (errno.EIO, errors.Broken, "os-error"),
    ],
)
def test_the_systems_errors_become_sentences(
    number: int, kind: type[errors.NexusError], code: str
) -> None:
    error = errors.as_nexus_error(OSError(number, "told by the system", "/a/file"))
    assert type(error) is kind
    assert error.code == code
    assert "/a/file" in error.text


def test_long_evidence_keeps_its_end() -> None:
    error = errors.Broken("What.", detail="x" * 20_000 + "the end")
    assert len(error.detail) == errors.MAX_DETAIL
    assert error.detail.endswith("the end")
