"""The console: two bounded files that read as one stream."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.factories import make_vm
from vms.console import console_tail, read_console
from vms.hypervisors.monitor import BoundedLog
from vms.models import VM
from vms.paths import make_vm_dir

pytestmark = pytest.mark.django_db


@pytest.fixture
def vm() -> VM:
    vm = make_vm()
    make_vm_dir(vm)
    return vm


def log_of(vm: VM, limit: int) -> BoundedLog:
    os.chdir(make_vm_dir(vm))
    return BoundedLog("console.log", limit)


@pytest.fixture(autouse=True)
def _back_where_we_were() -> object:
    before = Path.cwd()
    yield
    os.chdir(before)


def test_a_vm_that_never_started_has_an_empty_console(vm: VM) -> None:
    page = read_console(vm)
    assert (page.text, page.offset, page.next_offset, page.size) == ("", 0, 0, 0)
    assert console_tail(vm) == []


def test_a_page_begins_where_asked_and_says_where_it_ends(vm: VM) -> None:
    log_of(vm, 1000).write(b"0123456789")
    assert read_console(vm, 4, limit=3).text == "456"
    assert read_console(vm, 4, limit=3).next_offset == 7
    assert read_console(vm, -2).text == "89"
    assert read_console(vm, 99).next_offset == 10


def test_a_reader_goes_on_over_rotations_without_loss_or_repeat(vm: VM) -> None:
    log = log_of(vm, 10)
    read, at = "", 0
    for line in (b"aaaaaaaa", b"bbbbbbbb", b"cccccccc", b"dddddddd", b"eeeeeeee"):
        log.write(line)
        page = read_console(vm, at)
        read, at = read + page.text, page.next_offset
    assert read == "aaaaaaaabbbbbbbbccccccccddddddddeeeeeeee"
    assert at == 40


def test_a_reader_that_was_away_too_long_passes_over_what_was_dropped(vm: VM) -> None:
    log_of(vm, 10).write(b"x" * 35 + b"the end")
    page = read_console(vm, 0)
    assert page.offset == 30
    assert page.text == "x" * 5 + "the end"


def test_hostile_bytes_are_shown_as_text(vm: VM) -> None:
    log_of(vm, 1000).write(b"\xff\xfe ok \x80")
    assert "ok" in read_console(vm).text


def test_the_tail_is_of_this_boot_only(vm: VM) -> None:
    log_of(vm, 1000).write(b"the boot before\r\n")
    log_of(vm, 1000).write(b"one\r\n\r\ntwo\r\n")
    assert console_tail(vm) == ["one", "two"]
    assert "the boot before" in read_console(vm).text
