"""A headless Chromium that is signed in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from bench.server import ROOT, Server
from tests.servers import PATIENCE

ARTIFACTS = ROOT / "test-artifacts"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of the distribution; ended with its module, since tests that come after in
    this thread could run no event loop beside Playwright's."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "Chromium is missing; ./nexus test installs it where it may"
    # Playwright's own loop would make Django refuse to use the database in this thread.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def page(browser: Browser, server: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a person who has signed in by link; what its scripts complain of is an error."""
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(sign_in_link(server))
    page.wait_for_url(server.url + "/")
    yield page
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{request.node.name}.png", full_page=True)
    context.close()
    assert not complaints


def sign_in_link(server: Server) -> str:
    """What ``./nexus up`` prints."""
    done = subprocess.run(
        [sys.executable, Path(ROOT) / "manage.py", "sign_in_link"],
        env=server.env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()
