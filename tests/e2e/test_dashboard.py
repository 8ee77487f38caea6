"""The dashboard in a real browser, with real VMs behind it."""

from __future__ import annotations

import json
import re
import time

import pytest
from playwright.sync_api import Page, expect

from bench.server import Server
from tests.e2e.conftest import sign_in_link
from tests.servers import PATIENCE, history, kill, pid_of, wait_for_state

expect.set_options(timeout=PATIENCE * 1000)
NAME = "seen-in-a-browser"


def badge(page: Page) -> object:
    return page.locator("#vm-state")


def test_a_person_makes_a_vm_and_watches_it_become_ready(page: Page, server: Server) -> None:
    page.get_by_role("link", name="New VM").first.click()
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Memory").fill("256")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("Wait for the agent")).to_be_visible()
    assert NAME not in [vm["name"] for vm in server.get("/v1/vms")["items"]], "a preview"
    page.get_by_role("button", name="Create and start").click()
    page.wait_for_url(re.compile("/operations/"))
    expect(page.get_by_role("heading", name=re.compile(f"Create VM {NAME}"))).to_be_visible()
    expect(page.locator("#operation-state")).to_have_text("succeeded")
    page.goto(f"{server.url}/vms/{NAME}/")
    expect(badge(page)).to_have_text(re.compile("ready"))
    expect(page.locator("main")).to_contain_text("said hello after")


def test_a_killed_vmm_turns_the_badge_to_crashed_without_a_reload(
    page: Page, server: Server
) -> None:
    vm = server.get(f"/v1/vms/{NAME}")
    page.goto(f"{server.url}/vms/{NAME}/")
    expect(badge(page)).to_have_text(re.compile("ready"))
    page.evaluate("window.stillTheSamePage = true")
    kill(pid_of(server, vm))
    expect(badge(page)).to_have_text(re.compile("crashed"))
    expect(page.locator("main")).to_contain_text("SIGKILL")
    assert page.evaluate("window.stillTheSamePage") is True


def test_the_start_button_starts_it_and_the_history_grows(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/vms/{NAME}/")
    page.get_by_role("button", name="Start").first.click()
    expect(badge(page)).to_have_text(re.compile("ready"))
    states = [row["to_state"] for row in history(server, NAME)]
    assert states[-3:] == ["starting", "running", "ready"]


def test_the_console_follows_the_guest(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/vms/{NAME}/")
    expect(page.locator("main")).to_contain_text("OpenRC")


def test_a_banner_says_that_the_socket_is_down_and_the_page_catches_up(
    page: Page, server: Server
) -> None:
    vm = server.get(f"/v1/vms/{NAME}")
    page.goto(f"{server.url}/vms/{NAME}/")
    expect(badge(page)).to_have_text(re.compile("ready"))
    pid = pid_of(server, vm)
    server.stop()
    expect(page.locator("#offline")).to_be_visible()
    kill(pid)
    server.start()
    wait_for_state(server, NAME, "crashed")
    expect(page.locator("#offline")).to_be_hidden()
    expect(badge(page)).to_have_text(re.compile("crashed"))


def test_a_vm_is_deleted_only_once_its_name_was_typed(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/vms/{NAME}/")
    page.get_by_role("button", name="Delete").first.click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_role("textbox").fill(NAME)
    dialog.get_by_role("button", name="Delete").click()
    page.wait_for_url(re.compile(r"/vms/$"))
    deadline = time.monotonic() + PATIENCE
    while server.run("vm", "inspect", NAME).returncode == 0:
        assert time.monotonic() < deadline, "it is not gone"
        time.sleep(0.2)


def test_wrong_input_is_told_beside_its_field(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/vms/new/")
    page.get_by_label("Name").fill("Not A Name")
    page.get_by_role("button", name="Create and start").click()
    expect(page.locator("form#vms-new_form")).to_contain_text("cannot be a name")
    assert page.url.endswith("/vms/new/")


def test_a_sign_in_link_works_once_and_pages_ask_for_it(page: Page, server: Server) -> None:
    link = sign_in_link(server)
    page.context.clear_cookies()
    page.goto(f"{server.url}/vms/")
    expect(page).to_have_url(re.compile("/sign-in/"))
    page.goto(link)
    page.wait_for_url(server.url + "/")
    page.context.clear_cookies()
    page.goto(link)
    expect(page).to_have_url(re.compile(r"/sign-in/\?used=1"))


PAGES = [
    "/", "/vms/", "/vms/new/", "/drives/", "/operations/", "/events/", "/images/",
    "/templates/", "/builds/", "/distributions/", "/kernels/", "/account/",
    "/vms/new/?from=template", "/drives/new/", "/images/new/", "/images/import/",
    "/distributions/import/", "/providers/", "/providers/new/", "/providers/debian/",
]  # fmt: skip


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits_its_screen(page: Page, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_the_explorer_of_the_api_works_without_the_outside(page: Page, server: Server) -> None:
    outside: list[str] = []
    page.on("request", lambda r: None if r.url.startswith(server.url) else outside.append(r.url))
    page.goto(f"{server.url}/v1/docs")
    expect(page.locator("body")).to_contain_text("/v1/vms")
    assert [url for url in outside if not url.startswith("data:")] == []
    assert json.loads(page.request.get("/v1/openapi.json").text())["openapi"].startswith("3.")
