"""``/v1/doctor`` and the worker in ``/v1/status``."""

from __future__ import annotations

import pytest

from nexus_site import health
from nexus_site.core.models import Operation

pytestmark = pytest.mark.usefixtures("nudges")


def test_it_tells_every_finding_and_the_worst_of_them(reader, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(settings, "NEXUS", settings.NEXUS.model_copy(update={"data_dir": tmp_path}))
    found = reader.send("GET", "/doctor").json()
    assert (found["state"], found["looked_at"]) == ("missing", None)
    assert [row["key"] for row in found["findings"]] == ["worker", "queue", "data-dir"]
    assert found["findings"][0]["command"]
    health.look()
    found = reader.send("GET", "/doctor").json()
    assert found["looked_at"]
    keys = [row["key"] for row in found["findings"]]
    assert {"qemu", "vsock", "cgroups", "storage", "e2fsprogs", "database", "user"} <= {*keys}
    assert len(keys) == len(set(keys))


def test_the_status_says_whether_the_worker_is_there(reader, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(settings, "NEXUS", settings.NEXUS.model_copy(update={"data_dir": tmp_path}))
    worker = reader.send("GET", "/status").json()["worker"]
    assert worker == {"alive": False, "pid": None, "since": None}


def test_looking_again_is_an_operation(operator):
    plan = operator.send("POST", "/doctor?dry_run=1").json()
    assert plan["title"] == "Look at this host"
    assert not Operation.objects.exists()
    made = operator.send("POST", "/doctor")
    assert made.status_code == 202
    assert made.headers["Location"].endswith(made.json()["id"])
    assert operator.send("POST", "/doctor").json()["id"] == made.json()["id"], "one at a time"
