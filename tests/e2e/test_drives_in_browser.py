"""Drives in a real browser: snapshots and the way back, the storage, a VM's snapshots and clone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from bench.server import Server
from tests.servers import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)
VM = "drives-in-browser"


@pytest.fixture(scope="module")
def vm(server: Server) -> Iterator[str]:
    """A VM that was made and never started."""
    server.ctl("image", "from-rootfs", "alpine", "3.23", "--name", "for-drives")
    server.ctl("vm", "create", "--image", "for-drives", "--name", VM, "--memory", "256")
    yield VM
    for name in (VM, f"{VM}-2"):
        server.ctl("vm", "delete", name, "--yes", "--with-snapshots")


def ask(page: Page, button: str, **fields: str) -> None:
    """Press a button that opens a dialog, fill it in and press its own button."""
    page.get_by_role("button", name=button).first.click()
    dialog = page.locator("dialog#dialog[open]")
    for label, text in fields.items():
        dialog.get_by_label(label).fill(text)
    dialog.locator("[type=submit]").click()
    expect(dialog).to_have_count(0)


def row(page: Page, name: str) -> object:
    """The line of a snapshot in a tree."""
    link = page.get_by_role("link", name=name, exact=True)
    return page.locator(".tree tbody tr").filter(has=link)


def test_a_drive_goes_back_to_a_snapshot_and_the_page_follows(page: Page, server: Server) -> None:
    page.goto("/drives/new/?from=empty")
    page.get_by_label("Name").fill("browsed")
    page.get_by_label("Size").fill("16")
    expect(page.locator("#vms-plan")).to_contain_text("nexusctl drive create")
    page.get_by_role("button", name="Create").click()
    page.wait_for_url(re.compile("/operations/"))
    expect(page.locator("#operation-state")).to_have_text("succeeded")
    page.goto("/drives/browsed/")
    page.evaluate("window.stillTheSamePage = true")
    for name in ("first", "second"):
        ask(page, "Take snapshot", Name=name)
        expect(row(page, name)).to_contain_text("taken at rest")
        expect(row(page, name)).to_contain_text("you are here")
    ask(page, "Roll back first")
    expect(row(page, "first")).to_contain_text("you are here")
    expect(row(page, "second")).not_to_contain_text("you are here")
    page.get_by_label("Delete it with its VM").check()
    expect(page.get_by_text("It goes when the VM that has it is deleted.")).to_be_visible()
    assert page.evaluate("window.stillTheSamePage") is True
    assert server.get("/v1/drives/browsed")["delete_with_vm"] is True


def test_a_refused_name_stays_in_the_dialog_and_the_keyboard_is_enough(page: Page) -> None:
    page.goto("/drives/browsed/")
    page.get_by_role("button", name="Take snapshot").focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog#dialog[open]")
    expect(dialog.get_by_label("Name")).to_be_focused()
    page.keyboard.type("first")
    page.keyboard.press("Enter")
    expect(dialog.locator("#dialog_name-error")).to_contain_text("already")
    expect(dialog.get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_a_drive_is_taken_away_and_brought_back(page: Page) -> None:
    page.goto("/drives/browsed/")
    page.locator(".page-head summary").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export").click()
    assert download.value.suggested_filename == "browsed.tar.zst"
    page.goto("/drives/import/")
    page.set_input_files("input[type=file]", download.value.path())
    page.get_by_label("Name").fill("brought-back")
    page.get_by_role("button", name="Import").click()
    page.wait_for_url(re.compile("/operations/"))
    expect(page.locator("#operation-state")).to_have_text("succeeded")


def test_the_storage_is_checked_and_lists_what_drives_take(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Storage").click()
    expect(page.locator("#drives-storage")).to_contain_text("Backend")
    page.get_by_role("button", name="Check").click()
    expect(page.locator("#drives-storage_check")).to_contain_text("Nothing is wrong")
    page.get_by_role("link", name="Drive", exact=True).click()
    expect(page).to_have_url(re.compile(r"sort=name"))
    expect(page.locator("#drives-storage_table tbody th a").first).to_have_text("brought-back")


def test_a_vm_has_snapshots_and_a_clone(page: Page, server: Server, vm: str) -> None:
    page.goto(f"/vms/{vm}/")
    ask(page, "Take snapshot", Name="of-all")
    expect(row(page, "of-all")).to_contain_text("taken at rest")
    page.get_by_role("button", name="Roll back of-all").click()
    dialog = page.locator("dialog#dialog[open]")
    expect(dialog).to_contain_text("Restore the drives")
    dialog.get_by_role("button", name="Roll back").click()
    page.goto(f"/vms/{vm}/")
    expect(page.locator("#vms-operations")).to_contain_text("back to of-all")
    expect(page.locator("#vms-operations tbody tr").first).to_contain_text("succeeded")
    page.locator(".tree summary").click()
    page.get_by_role("button", name="Clone from it").click()
    dialog.get_by_label("Name").fill(f"{vm}-2")
    dialog.get_by_label("Start it at once").uncheck()
    dialog.get_by_role("button", name="Clone").click()
    page.wait_for_url(re.compile("/operations/"))
    expect(page.locator("#operation-state")).to_have_text("succeeded")
    macs = {server.get(f"/v1/vms/{name}")["mac"] for name in (vm, f"{vm}-2")}
    assert len(macs) == 2


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_drives_fit_their_screen(page: Page, vm: str, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for path in (
        "/storage/", "/storage/check/", "/drives/import/", "/drives/new/?from=snapshot",
        "/drives/browsed/", "/snapshots/first/", f"/vms/{vm}/", "/vm-snapshots/of-all/",
        "/snapshots/first/rollback/",
    ):  # fmt: skip
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
