"""A person with the files of a VM, in a real browser with a real VM behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Locator, Page, expect

from bench.server import Server
from tests.servers import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)
NAME = "files-in-a-browser"


@pytest.fixture(scope="module")
def vm(server: Server) -> str:
    """The ID of a ready VM."""
    server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", NAME, "--memory", "256")
    found: str = server.get(f"/v1/vms/{NAME}")["id"]
    return found


def sh(server: Server, vm: str, script: str) -> str:
    answer = server.post(f"/v1/vms/{vm}/exec", argv=["sh", "-ec", script])
    assert answer["exit_code"] == 0, answer
    return str(answer["stdout"])


def row(page: Page, name: str) -> Locator:
    return page.locator("#vms-files tr", has=page.get_by_role("link", name=name, exact=True))


def test_a_way_through_directories_can_be_shared(page: Page, vm: str) -> None:
    page.goto(f"/vms/{vm}/files/")
    row(page, "etc").get_by_role("link").click()
    row(page, "hostname").get_by_role("link").click()
    expect(page.get_by_label("Content")).to_have_value(re.compile(r"\w+\n"))
    assert page.url.endswith("/files/?path=/etc/hostname")
    page.reload()
    expect(page.get_by_label("Content")).to_be_visible()
    page.go_back()
    expect(row(page, "hostname")).to_be_visible()


def test_files_are_uploaded_replaced_and_deleted(
    page: Page, server: Server, vm: str, tmp_path: Path
) -> None:
    names = ("one.txt", "<b>&'\".bin")
    (tmp_path / names[0]).write_text("one")
    (tmp_path / names[1]).write_bytes(bytes(5_000_000))
    page.goto(f"/vms/{vm}/files/?path=/srv")
    page.set_input_files("[data-files]", [tmp_path / name for name in names])
    for name in names:
        expect(row(page, name)).to_be_visible()
    assert sh(server, vm, "cat /srv/one.txt; cat /srv/*.bin | wc -c") == "one5000000\n"
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    page.once("dialog", refuse)
    (tmp_path / "one.txt").write_text("another")
    page.set_input_files("[data-files]", tmp_path / "one.txt")
    expect(page.locator("#uploads")).to_contain_text("left as it is")
    assert asked == ["Replace “one.txt”, which is there already?"]
    assert sh(server, vm, "cat /srv/one.txt") == "one"
    row(page, names[1]).locator("summary").click()
    row(page, names[1]).get_by_role("button", name="Delete").click()
    page.locator("#dialog").get_by_role("button", name="Delete").click()
    expect(row(page, names[1])).to_have_count(0)


def test_a_text_is_edited_unless_the_guest_was_faster(page: Page, server: Server, vm: str) -> None:
    sh(server, vm, "printf 'one\\n' > /srv/text; chmod 640 /srv/text")
    page.goto(f"/vms/{vm}/files/?path=/srv/text")
    text, save = page.get_by_label("Content"), page.get_by_role("button", name="Save")
    text.fill("two\n")
    save.click()
    expect(page.get_by_text("Saved")).to_be_visible()
    assert sh(server, vm, "cat /srv/text; stat -c %a /srv/text") == "two\n640\n"
    sh(server, vm, "echo guest >> /srv/text")
    text.fill("mine\n")
    save.click()
    expect(page.locator("#toasts")).to_contain_text("was changed in the VM meanwhile")
    expect(text).to_have_value("mine\n")
    assert sh(server, vm, "cat /srv/text") == "two\nguest\n"
    page.get_by_role("link", name="Read it again").click()
    expect(text).to_have_value("two\nguest\n")


def test_a_stopped_vm_has_a_way_on(page: Page, server: Server, vm: str) -> None:
    server.ctl("vm", "stop", vm, "--force")
    page.goto(f"/vms/{vm}/files/?path=/etc")
    page.locator("#vms-files").get_by_role("button", name="Start").click()
    expect(row(page, "hostname")).to_be_visible()
