"""What all tests share."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import AppConfig, apps
from django.conf import settings
from django.db.models.signals import post_migrate

from bench.server import Server, running_server
from images.models import Provider
from nexus_site.core import operations
from tests.rig.summary import pytest_terminal_summary as pytest_terminal_summary  # a hook
from tests.servers import vmms

#: Directories whose tests start real VMs; they share a server, so one process runs them all.
REAL = {"live", "e2e"}
#: The longest groups, in the order in which they begin where several processes share the tests.
LONG = ("rig", "live")


# In a shell's background Ctrl-C is ignored, also by what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    """Mark tests by where they are, before xdist reads the groups; put the long ones first,
    after pytest-django has sorted them by their use of the database."""
    _mark(items)
    yield
    if hasattr(config, "workerinput"):
        items.sort(key=_start)


def _mark(items: list[pytest.Item]) -> None:
    for item in items:
        kind = _kind(item.path)
        if kind in REAL:
            item.add_marker(pytest.mark.live if kind == "live" else pytest.mark.browser)
            if item.get_closest_marker("xdist_group") is None:  # else it has a server of its own
                item.add_marker(pytest.mark.xdist_group("live"))
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(900))


def _kind(path: Path) -> str:
    """The directory below tests/ that a file is in."""
    return path.relative_to(Path(__file__).parent).parts[0]


def _start(item: pytest.Item) -> int:
    """When a test begins, of several processes that take what comes next."""
    group = item.get_closest_marker("xdist_group")
    return LONG.index(group.args[0]) if group and group.args[0] in LONG else len(LONG)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long bytes are named by their length: some differ from one process to the next."""
    if isinstance(val, bytes) and len(val) > 24:
        return f"{argname}-of-{len(val)}-bytes"
    return None


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A Nexus of its own, with short patience for silent agents."""
    with running_server(NEXUS_HEARTBEAT_INTERVAL="1", NEXUS_HEARTBEAT_TIMEOUT="6") as server:
        yield server
        left = vmms(server)
    assert not any(process.is_running() for process in left), "a VMM outlived its VM"


@pytest.fixture(scope="module", autouse=True)
def _no_vm_outlives_its_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Guests that do nothing keep an emulating host busy all the same."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    mine = (item for item in items if item.module is request.module)
    if _kind(request.path) not in REAL or not any("server" in item.fixturenames for item in mine):
        yield
        return
    server = request.getfixturevalue("server")
    yield
    for vm in server.get("/v1/vms?limit=200")["items"]:
        server.run("vm", "delete", vm["id"], "--force", "--with-snapshots", "--yes")


@pytest.fixture(autouse=True)
def _fast_and_quiet(settings: Any) -> None:
    """Cheap password hashes, and static files that need no ``collectstatic``."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STATIC_ROOT.mkdir(exist_ok=True)
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }


@pytest.fixture(scope="session", autouse=True)
def _default_providers() -> None:
    """The rows that a migration made are there again after a test emptied the tables."""
    seed = importlib.import_module("images.migrations.0003_default_providers").seed

    def again(sender: AppConfig, **_: object) -> None:
        if sender.name == "images" and not Provider.objects.exists():
            seed(apps, None)

    post_migrate.connect(again, weak=False)


@pytest.fixture
def nudges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The IDs of operations put on the queue, in place of the queue."""
    sent: list[str] = []
    monkeypatch.setattr(operations, "_nudge", sent.append)
    return sent


@pytest.fixture
def data_dir() -> Path:
    """The data directory of this test process."""
    return Path(settings.NEXUS.data_dir)
