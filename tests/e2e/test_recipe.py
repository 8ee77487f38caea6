"""A person edits a template, builds it, follows the log and starts a VM from what came of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from bench.server import Server
from tests.servers import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)
NAME = "edited-in-a-browser"


@pytest.fixture(scope="module")
def template(server: Server) -> Iterator[str]:
    """A template of a plain Alpine."""
    server.ctl("rootfs", "download", "alpine", "3.23")
    server.ctl("template", "create", "alpine", "3.23", "--name", NAME)
    yield NAME
    server.run("vm", "delete", NAME, "--force", "--yes")


def test_an_edit_makes_a_new_version(page: Page, server: Server, template: str) -> None:
    page.goto(f"{server.url}/templates/{template}/")
    page.get_by_role("link", name="Edit", exact=True).click()
    page.get_by_role("button", name="Add a file").click()
    page.get_by_label("Path").fill("/etc/motd")
    page.get_by_label("Content", exact=False).last.fill("Hello from the editor\n")
    page.get_by_role("button", name="Add a command").click()
    page.locator(".editor-command textarea").fill(
        "echo one; sleep 4; echo two; sleep 4; echo three"
    )
    page.get_by_role("button", name="Save as version 2").click()
    page.wait_for_url(re.compile(rf"/templates/{template}|/templates/[a-z2-7]{{13}}/$"))
    expect(page.get_by_role("link", name="Version 2")).to_be_visible()
    assert server.get(f"/v1/templates/{template}")["current"]["number"] == 2


def test_its_build_is_followed_live_and_its_image_becomes_a_vm(
    page: Page, server: Server, template: str
) -> None:
    page.goto(f"{server.url}/templates/{template}/")
    page.get_by_role("button", name="Build", exact=True).first.click()
    page.locator("dialog[open]").get_by_role("button", name=re.compile("Build")).click()
    page.wait_for_url(re.compile("/builds/[a-z2-7]{13}/"))
    page.evaluate("window.stillTheSamePage = true")
    log = page.get_by_role("log")
    expect(log).to_contain_text("  one")
    assert "  three" not in log.inner_text(), "it came with the others: nothing was followed"
    expect(log).to_contain_text("  three")
    expect(log).to_contain_text("checked: the file system is clean")
    expect(page.locator("main")).to_contain_text("succeeded")
    assert page.evaluate("window.stillTheSamePage") is True

    page.goto(f"{server.url}/images/{NAME}/")
    expect(page.locator("main")).to_contain_text("1 file")
    page.get_by_role("link", name="New VM", exact=True).last.click()
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Memory").fill("256")
    page.get_by_role("button", name="Create and start").click()
    page.wait_for_url(re.compile("/operations/"))
    expect(page.locator("#operation-state")).to_have_text("succeeded")
    page.goto(f"{server.url}/vms/{NAME}/")
    expect(page.locator("#vm-state")).to_have_text(re.compile("ready"))


def test_what_is_in_the_image_can_be_looked_at(page: Page, server: Server, template: str) -> None:
    page.goto(f"{server.url}/images/{NAME}/")
    page.get_by_role("link", name="Files", exact=True).click()
    page.get_by_role("link", name="etc", exact=True).click()
    page.get_by_role("link", name="motd", exact=True).click()
    expect(page.locator("main")).to_contain_text("Hello from the editor")
    page.get_by_role("link", name=re.compile("^Packages")).click()
    expect(page.locator("main")).to_contain_text("apk-tools")
