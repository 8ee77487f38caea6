"""VMs that stand still, go on and are forked, by a person in a real browser."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from bench.server import Server
from tests.e2e.test_terminal_in_browser import note, open_terminal, screen, type_line
from tests.servers import PATIENCE, history, wait_for_state

expect.set_options(timeout=PATIENCE * 1000)
NAME = "still-in-a-browser"


@pytest.fixture(scope="module")
def vm(server: Server) -> str:
    """The ID of a VM that is ready."""
    server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", NAME, "--memory", "256")
    return str(wait_for_state(server, NAME, "ready")["id"])


def test_it_is_suspended_and_resumed_by_buttons(page: Page, server: Server, vm: str) -> None:
    page.goto(f"/vms/{vm}/")
    badge = page.locator("#vm-state")
    expect(badge).to_have_text(re.compile("ready"))
    page.evaluate("window.stillTheSamePage = true")
    page.get_by_role("button", name="Suspend", exact=True).click()
    expect(badge).to_have_text(re.compile("suspended"))
    notice = page.get_by_label("Suspended")
    expect(notice).to_contain_text(re.compile(r"by operator\. Its memory takes \d.* MiB"))
    notice.get_by_role("button", name="Resume").click()
    expect(badge).to_have_text(re.compile("ready"))
    expect(notice).to_have_count(0)
    expect(page.locator("#vms-header .btn:focus")).to_have_count(1)
    starts = page.locator(".starts li")
    expect(starts).to_have_count(2)
    expect(starts.first).to_contain_text("resumed")
    expect(starts.last).to_contain_text("booted")
    assert page.evaluate("window.stillTheSamePage") is True


def test_a_keystroke_brings_an_idle_vm_back_with_its_screen(
    page: Page, server: Server, vm: str
) -> None:
    open_terminal(page, vm)
    type_line(page, "WORD=otter; clear; echo before-$((6 * 7))")
    expect(screen(page)).to_contain_text("before-42")
    server.ctl("vm", "update", vm, "--idle-suspend", "1m")
    wait_for_state(server, vm, "suspended")
    expect(note(page)).to_contain_text("The VM has suspended itself")
    expect(page.locator("#vms-terminal_state")).to_contain_text("It has suspended itself.")
    expect(screen(page)).to_contain_text("before-42")
    page.wait_for_timeout(5000)  # in which a page that reconnects would have woken it
    assert server.get(f"/v1/vms/{vm}")["state"] == "suspended"
    server.ctl("vm", "update", vm, "--idle-suspend", "never")
    type_line(page, "echo again-$WORD")
    expect(screen(page)).to_contain_text("again-otter")
    expect(screen(page)).to_contain_text("before-42")
    expect(note(page)).to_be_hidden()
    reasons = [move["reason"] for move in history(server, vm)]
    assert "woken: somebody asked its agent" in reasons


def test_a_pause_is_told_at_the_terminal(page: Page, vm: str) -> None:
    open_terminal(page, vm)
    page.get_by_label("More ways to hold it").click()
    page.get_by_role("button", name="Pause", exact=True).click()
    state = page.locator("#vms-terminal_state")
    expect(state).to_contain_text("It is paused.")
    state.get_by_role("button", name="Unpause").click()
    expect(page.locator("#vm-state")).to_have_text(re.compile("ready"))
    expect(page.locator(".terminal-panel:not([hidden]) textarea:focus")).to_have_count(1)
    type_line(page, "echo on-$((6 * 7))")
    expect(screen(page)).to_contain_text("on-42")


def test_two_forks_by_the_dialog_and_the_lineage_shows_them(
    page: Page, server: Server, vm: str
) -> None:
    page.goto(f"/vms/{vm}/")
    page.get_by_role("button", name="Fork", exact=True).click()
    dialog = page.locator("#dialog")
    expect(dialog).to_contain_text("Save memory and drives")
    dialog.get_by_label("How many").fill("2")
    dialog.get_by_label("Name").fill("sibling")
    dialog.get_by_role("button", name="Fork", exact=True).click()
    page.wait_for_url(re.compile("/operations/"))
    for name in ("sibling-1", "sibling-2"):
        expect(page.get_by_role("row", name=re.compile(name))).to_contain_text("ready")
    expect(page.locator("#operation-state")).to_have_text("succeeded")
    page.get_by_role("link", name="sibling-1", exact=True).click()
    lineage = page.locator("#vms-lineage")
    for name in (NAME, "sibling-1", "sibling-2"):
        expect(lineage.get_by_role("row", name=re.compile(name)).first).to_be_visible()
    expect(lineage).to_contain_text("this one")
    row = lineage.get_by_role("row", name=re.compile(r"^sibling-2"))
    server.ctl("vm", "stop", "sibling-2", "--force")
    expect(row).to_contain_text("stopped")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_screen(
    page: Page, vm: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for address in (f"/vms/{vm}/", "/vms/"):
        page.goto(address)
        expect(page.locator("main")).to_contain_text(NAME)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, address
