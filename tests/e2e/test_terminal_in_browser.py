"""A person at a VM's terminal, in a real browser with a real VM behind it."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from bench.server import Server
from tests.servers import PATIENCE, wait_for_state

expect.set_options(timeout=PATIENCE * 1000)
NAME = "terminal-in-a-browser"
# What init would start again at once is kept from it for a while, as a guest in trouble would.
KILL_THE_AGENT = (
    "setsid sh -c 'pkill -STOP supervise-daemon; pkill -9 nexus-agent; sleep 15; "
    "pkill -CONT supervise-daemon' >/dev/null 2>&1 </dev/null &"
)


@pytest.fixture(scope="module")
def vm(server: Server) -> str:
    """The ID of a VM that boots while the first test looks."""
    done = server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", NAME, "--memory", "256")
    assert done
    found: str = server.get(f"/v1/vms/{NAME}")["id"]
    return found


def screen(page: Page) -> Locator:
    """The rows of the terminal that is shown."""
    return page.locator(".terminal-panel:not([hidden]) .xterm-rows")


def note(page: Page) -> Locator:
    """What the page says of the terminal that is shown."""
    return page.locator(".terminal-panel:not([hidden]) .terminal-note")


def shells(page: Page) -> Locator:
    return page.locator(".terminal-tab:has(.terminal-name)")


def open_terminal(page: Page, vm: str) -> None:
    page.goto(f"/vms/{vm}/terminal/")
    expect(screen(page)).to_contain_text("#")  # the prompt


def type_line(page: Page, text: str) -> None:
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def test_a_booting_vm_shows_its_console_and_then_opens_a_shell(
    page: Page, server: Server, vm: str
) -> None:
    server.ctl("vm", "stop", vm, "--force")
    page.goto(f"/vms/{vm}/terminal/")
    expect(page.locator("#vms-terminal_state")).to_contain_text("It does not run.")
    page.get_by_role("button", name="Start it").click()
    expect(page.locator("#vms-terminal_state")).to_contain_text("It boots.")
    expect(page.locator("#console")).to_contain_text("OpenRC")
    expect(screen(page)).to_contain_text("#")
    expect(shells(page)).to_have_count(1)
    type_line(page, "echo opened-$((6 * 7))")
    expect(screen(page)).to_contain_text("opened-42")


def test_a_reload_keeps_the_shell_and_what_it_has_said(page: Page, vm: str) -> None:
    open_terminal(page, vm)
    type_line(page, "WORD=otter; echo before-$((6 * 7))")
    expect(screen(page)).to_contain_text("before-42")
    page.reload()
    expect(screen(page)).to_contain_text("before-42")
    expect(shells(page)).to_have_count(1)
    type_line(page, "echo again-$WORD")
    expect(screen(page)).to_contain_text("again-otter")


def test_what_comes_while_the_connection_is_lost_is_shown_after(
    page: Page, server: Server, vm: str
) -> None:
    open_terminal(page, vm)
    type_line(page, "(sleep 3; echo meanwhile-$((6 * 7))) & echo begun-$((6 * 7))")
    expect(screen(page)).to_contain_text("begun-42")
    server.stop()
    expect(note(page)).to_contain_text("Reconnecting")
    server.start()
    expect(screen(page)).to_contain_text("meanwhile-42")
    expect(note(page)).to_be_hidden()
    type_line(page, "echo on-$((6 * 7))")
    expect(screen(page)).to_contain_text("on-42")


def test_the_guest_learns_the_windows_size(page: Page, vm: str) -> None:
    open_terminal(page, vm)
    sizes = []
    for width, height in ((1200, 800), (900, 600)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(500)  # the page waits for the last change
        type_line(page, f"clear; echo at-{width} $(stty size)")
        said = screen(page).filter(has_text=re.compile(rf"at-{width} \d+ \d+"))
        expect(said).to_be_visible()
        found = re.search(rf"at-{width} (\d+) (\d+)", said.inner_text())
        assert found
        sizes.append((int(found[1]), int(found[2])))
    (high, wide), (low, narrow) = sizes
    assert high > low
    assert wide > narrow


def test_what_is_found_and_what_is_copied(page: Page, vm: str, server: Server) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    open_terminal(page, vm)
    type_line(page, "clear; echo needle-one; echo needle-two")
    expect(screen(page)).to_contain_text("needle-two")
    page.keyboard.press("Control+Shift+F")
    page.get_by_label("Find in this terminal").fill("needle-t")
    expect(page.locator(".terminal-find output")).to_have_text(re.compile(r"\d+ of \d+"))
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+C")
    page.wait_for_function("navigator.clipboard.readText().then((text) => text === 'needle-t')")


def test_what_a_guest_writes_stays_in_its_screen(page: Page, vm: str, server: Server) -> None:
    """Titles are text; neither the clipboard nor links are within its reach."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
    open_terminal(page, vm)
    page.evaluate("navigator.clipboard.writeText('mine')")
    title = r"\033]0;<b>title</b>\033\\"
    link = r"\033]8;;https://example.com\033\\link\033]8;;\033\\"
    type_line(page, rf"printf '{title}{link}\033]52;c;dGhlaXJz\007done-%d\n' 42")
    expect(screen(page)).to_contain_text("linkdone-42")
    expect(page.locator(".terminal-name").first).to_have_text("<b>title</b>")
    assert page.evaluate("navigator.clipboard.readText()") == "mine"
    row = screen(page).locator("div", has_text="linkdone-42").bounding_box()
    assert row
    page.mouse.click(row["x"] + 10, row["y"] + row["height"] / 2)  # on the first letters
    type_line(page, "echo still-$((6 * 7))")
    expect(screen(page)).to_contain_text("still-42")
    assert len(page.context.pages) == 1


def test_a_flood_leaves_the_page_alive_and_can_be_interrupted(page: Page, vm: str) -> None:
    open_terminal(page, vm)
    type_line(page, "clear; yes flooding")
    expect(screen(page)).to_contain_text("flooding")
    page.wait_for_timeout(3000)
    page.keyboard.press("Control+C")
    type_line(page, "clear; echo calm-$((6 * 7))")
    expect(screen(page)).to_contain_text("calm-42")


def test_the_console_is_a_tab_of_its_own_and_survives_a_reload(page: Page, vm: str) -> None:
    open_terminal(page, vm)
    type_line(page, "echo said-on-the-console > /dev/console")
    page.get_by_role("tab", name="Console").click()
    expect(page.locator("#console")).to_contain_text("said-on-the-console")
    page.reload()
    expect(page.get_by_role("tab", name="Console")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#console")).to_contain_text("said-on-the-console")


def test_a_program_ends_with_its_tab_or_goes_on_without(page: Page, vm: str) -> None:
    open_terminal(page, vm)
    page.get_by_role("button", name="New shell").first.click()
    expect(shells(page)).to_have_count(2)
    type_line(page, "echo second-$((6 * 7))")
    expect(screen(page)).to_contain_text("second-42")
    shells(page).last.get_by_label("Close this tab").click()
    page.get_by_role("button", name="Close the tab").click()
    expect(shells(page)).to_have_count(1)
    page.get_by_label("Sessions without a tab").click()
    page.locator("[data-closed] .menu-list button").last.click()
    expect(screen(page)).to_contain_text("second-42")
    shells(page).last.get_by_label("Close this tab").click()
    page.get_by_role("button", name="End the program").click()
    expect(note(page)).to_contain_text("The program ended")
    shells(page).last.get_by_label("Close this tab").click()
    expect(shells(page)).to_have_count(1)


def test_a_killed_agent_makes_it_unreachable_and_its_return_ready(
    page: Page, server: Server, vm: str
) -> None:
    open_terminal(page, vm)
    type_line(page, "clear; echo kept-$((6 * 7))")
    expect(screen(page)).to_contain_text("kept-42")
    type_line(page, KILL_THE_AGENT)
    badge = page.locator("#vm-state")
    expect(badge).to_have_text(re.compile("unreachable"))
    expect(page.locator("#vms-terminal_state")).to_contain_text("The guest does not answer.")
    expect(screen(page)).to_contain_text("kept-42")
    page.get_by_role("tab", name="Console").click()
    expect(page.locator("#console")).to_contain_text("OpenRC")
    expect(badge).to_have_text(re.compile("ready"))
    wait_for_state(server, vm, "ready")
    page.get_by_role("tab").last.click()
    type_line(page, "echo back-$((6 * 7))")
    expect(screen(page)).to_contain_text("back-42")


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_screen(
    page: Page, vm: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    open_terminal(page, vm)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") <= 900
    keys = page.get_by_role("toolbar", name="Keys")
    assert keys.is_visible() == (width == 390)
