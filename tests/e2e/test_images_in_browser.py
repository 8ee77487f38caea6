"""Images in a real browser: a file is sent, and what came of it is looked into."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from playwright.sync_api import Page, expect

from bench.server import Server
from tests.servers import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)


def archive(directory: Path) -> Path:
    """A root file system with next to nothing in it."""
    root = directory / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/motd").write_text("Hello from a file of one's own.\n")
    target = directory / "mine.tar"
    subprocess.run(["tar", "-C", root, "-cf", target, "."], check=True)
    return target


def test_a_file_becomes_an_image_that_can_be_looked_into(
    page: Page, server: Server, tmp_path: Path
) -> None:
    page.goto("/images/import/")
    page.set_input_files("input[type=file]", archive(tmp_path))
    page.get_by_label("Name").fill("sent-by-browser")
    page.get_by_label("SHA-256").fill("0" * 64)
    page.get_by_role("button", name="Import").click()
    expect(page.locator("#id_sha256-error")).to_contain_text("its checksum is another")
    page.set_input_files("input[type=file]", tmp_path / "mine.tar")
    page.get_by_label("SHA-256").fill("")
    page.get_by_role("button", name="Import").click()
    page.wait_for_url(re.compile("/operations/"))
    expect(page.locator("#operation-state")).to_have_text("succeeded")
    page.goto("/images/sent-by-browser/files/")
    page.evaluate("window.stillTheSamePage = true")
    page.get_by_role("link", name="etc", exact=True).click()
    page.get_by_role("link", name="motd").click()
    expect(page.locator("pre")).to_contain_text("Hello from a file of one's own.")
    page.get_by_label("Path").get_by_role("link", name="etc").click()
    expect(page).to_have_url(re.compile(r"/files/\?path=/etc$"))
    expect(page.locator("tbody")).to_contain_text("motd")
    assert page.evaluate("window.stillTheSamePage") is True


def test_an_image_is_verified_by_a_button(page: Page, server: Server) -> None:
    server.ctl("image", "from-rootfs", "alpine", "3.23", "--name", "to-verify")
    page.goto("/images/to-verify/")
    expect(page.locator("main")).to_contain_text("not yet")
    page.get_by_role("button", name="Verify").click()
    page.wait_for_url(re.compile("/builds/"))
    expect(page.locator(".state-large")).to_have_text("succeeded")
    expect(page.locator("main")).to_contain_text("The same to the last byte.")
    page.goto("/images/to-verify/")
    expect(page.locator("main")).to_contain_text("1 time, last")
