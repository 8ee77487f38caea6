"""The charts of a real VM, as they go on by themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from bench.server import Server
from tests.servers import PATIENCE

expect.set_options(timeout=PATIENCE * 1000)
NAME = "measured-in-a-browser"
KNOWN = re.compile(r"\d %")


@pytest.fixture(scope="module")
def vm(server: Server) -> Iterator[str]:
    server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", NAME, "--memory", "256")
    yield NAME
    server.ctl("vm", "delete", NAME, "--force", "--yes")


def test_charts_are_drawn_go_on_and_say_what_is_pointed_at(
    page: Page, server: Server, vm: str
) -> None:
    page.goto(f"{server.url}/vms/{vm}/metrics/?range=15m")
    page.evaluate("window.stillTheSamePage = true")
    now = page.locator('[data-value="cpu now"]')
    expect(now).to_have_text(KNOWN)
    expect(page.locator(".chart-plot canvas")).to_have_count(6)
    expect(page.locator("#marks")).to_contain_text("ready")
    loop = ["sh", "-c", "(while :; do :; done) >/dev/null 2>&1 &"]
    server.post(f"/v1/vms/{vm}/exec", argv=loop)
    expect(now).to_have_text(re.compile(r"^([6-9]\d|100) %$"))
    assert page.evaluate("window.stillTheSamePage") is True

    plot = page.locator(".chart-plot .u-over").first
    box = plot.bounding_box()
    assert box
    plot.hover(position={"x": box["width"] - 8, "y": 40})
    headings = page.locator("[data-when]")
    expect(headings.first).to_have_text(re.compile(r"\d\d:\d\d:\d\d"))
    assert len(set(headings.all_text_contents())) == 1, "all charts are pointed at"
    page.mouse.move(5, 5)
    expect(headings.first).to_have_text("Now")


def test_the_list_fills_its_bars_by_itself(page: Page, server: Server, vm: str) -> None:
    page.goto(f"{server.url}/vms/?q={vm}")
    bar = page.locator('[data-usage="cpu"]')
    expect(bar).to_be_visible()
    page.evaluate("document.querySelector('[data-usage=cpu]').value = 1")
    expect(bar).to_have_attribute("title", re.compile(r"^([6-9]\d|100) %$"))
    expect(bar).not_to_have_js_property("value", 1)
