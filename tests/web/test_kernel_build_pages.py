"""The pages of builds of kernels: what they show, and that they believe no guest's words."""

from __future__ import annotations

import pytest
from django.test import Client

from builds.log import log_path
from images.models import Kernel
from tests.factories import make_kernel, make_kernel_build
from tests.web.conftest import make_operation

pytestmark = pytest.mark.usefixtures("nudges")


def _html(client: Client, address: str) -> str:
    response = client.get(address)
    assert response.status_code == 200
    return response.content.decode()


def test_the_list_says_how_to_begin(client: Client) -> None:
    assert "nexusctl kernel build VERSION" in _html(client, "/builds/kernels/")


def test_the_list_leads_to_each_build(client: Client) -> None:
    build = make_kernel_build()
    html = _html(client, "/builds/kernels/")
    assert f'href="/builds/kernels/{build.ref}/"' in html
    assert "Linux 6.1.192 (microvm 1)" in html
    assert "Nothing" not in _html(client, "/builds/kernels/?q=6.1.192")


def test_a_running_build_shows_its_progress_its_log_and_can_be_cancelled(client: Client) -> None:
    operation = make_operation(title="Build Linux 6.1.192", state="running")
    build = make_kernel_build(operation_id=operation.pk, compiled=7, expected=1494)
    log_path(build).parent.mkdir(parents=True, exist_ok=True)
    log_path(build).write_text("CC <b>kernel</b>/fork.o\n")
    html = _html(client, f"/builds/kernels/{build.ref}/")
    assert "7 of 1494" in html
    assert "CC &lt;b&gt;kernel&lt;/b&gt;/fork.o" in html
    assert f"/ws/kernel-builds/{build.ref}/log" in html
    assert f"/operations/{operation.ref}/cancel/" in html


def test_a_kernel_that_did_not_boot_says_where_it_stopped(client: Client) -> None:
    kernel = make_kernel(
        state=Kernel.State.BAD,
        boots={
            "qemu": {"seconds": None, "at": "2026-11-23T10:00:00Z", "problem": "stopped at <x>"}
        },
    )
    error = {"text": "The kernel does not boot.", "hint": "Compare.", "detail": "VFS: no root"}
    build = make_kernel_build(kernel=kernel, state="failed", error=error)
    html = _html(client, f"/builds/kernels/{build.ref}/")
    for words in ("The kernel does not boot.", "VFS: no root", "stopped at &lt;x&gt;", kernel.name):
        assert words in html


def test_a_build_that_is_not_there_is_told(client: Client) -> None:
    assert client.get("/builds/kernels/aaaaaaaaaaaac/").status_code == 404
