"""Templates that say something: built in VMs of their own, booted, and built again elsewhere."""

from __future__ import annotations

import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.server import Server, running_server
from tests.apk_repository import KEY_NAME, Repository
from tests.servers import PATIENCE, ctl_fails

HOST = "10.0.2.2"  # this machine, as guests see it
SAID_BY_PACKAGE, SAID_BY_OVERLAY = "the package is here", "the overlay is here"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repository, int]]:
    """An apk repository with the package ``proof``, and the port at which it is served."""
    directory = tmp_path_factory.mktemp("repository")
    made = Repository(directory)
    made.publish(
        "proof", "1.0-r0", {"usr/bin/proof": f"#!/bin/sh\necho {SAID_BY_PACKAGE}\n".encode()}
    )
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield made, web.server_port
        web.shutdown()


@pytest.fixture(scope="module")
def alpine(repository: tuple[Repository, int]) -> dict[str, Any]:
    """A template with a package of that repository, overlays, a command and a variable."""
    made, port = repository
    script = "#!/bin/sh\nproof > /dev/console\ncat /etc/proof > /dev/console\n"
    return {
        "name": "proof",
        "rootfs": {"distro": "alpine", "version": "3.23"},
        "overlays": [
            {"path": "/etc/apk/repositories", "content": f"http://{HOST}:{port}\n"},
            {"path": f"/etc/apk/keys/{KEY_NAME}", "content": made.key},
            {"path": "/etc/proof", "content": f"{SAID_BY_OVERLAY}\n"},
            {"path": "/etc/local.d/proof.start", "content": script, "mode": "0755"},
        ],
        "packages": ["proof"],
        "commands": ["rc-update add local default", 'test "$GREETING" = hello'],
        "env": {"GREETING": "hello"},
    }


def import_template(server: Server, tmp_path: Path, document: dict[str, Any]) -> None:
    file = tmp_path / "template.yaml"
    file.write_text(yaml.safe_dump(document))
    rootfs = document["rootfs"]
    server.ctl("rootfs", "download", rootfs["distro"], rootfs["version"])
    server.ctl("template", "import", str(file), "--replace")


def wait_for_console(server: Server, vm: str, *texts: str) -> str:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        console: str = server.get(f"/v1/vms/{vm}/console?offset=0")["text"]
        if all(text in console for text in texts):
            return console
        time.sleep(0.2)
    raise AssertionError(f"{texts} never came: {console[-2000:]}")


def log_of(server: Server, operation: dict[str, Any]) -> str:
    build = operation["result"].get("build") or operation["subject"]["id"]
    text: str = server.get(f"/v1/builds/{build}/log")["text"]
    return text


def test_an_alpine_with_a_package_and_overlays_boots_with_all_in_place(
    server: Server, alpine: dict[str, Any], tmp_path: Path
) -> None:
    import_template(server, tmp_path, alpine)
    server.ctl("vm", "from-template", "proof", "--name", "proof", "--memory", "256")
    vm = server.get("/v1/vms/proof")
    assert (vm["state"], vm["desired_state"]) == ("ready", "running")
    wait_for_console(server, "proof", SAID_BY_PACKAGE, SAID_BY_OVERLAY)
    server.ctl("vm", "delete", "proof", "--force", "--yes")


def test_what_apk_said_is_in_the_log(server: Server) -> None:
    (build,) = (b for b in server.get("/v1/builds")["items"] if b["template"]["name"] == "proof")
    log = server.get(f"/v1/builds/{build['id']}/log")["text"]
    assert "$ apk add proof" in log
    assert "Installing proof (1.0-r0)" in log
    assert "$ rc-update add local default" in log


def test_the_image_says_what_is_in_it(server: Server) -> None:
    packages = {p["name"]: p["version"] for p in server.get("/v1/images/proof/packages")["items"]}
    assert packages["proof"] == "1.0-r0"
    names = {file["name"] for file in server.get("/v1/images/proof/files?path=/usr/bin")["items"]}
    assert {"proof", "nexus-agent"} <= names
    image = server.get("/v1/images/proof")
    assert image["init"] == "openrc"
    assert image["inputs"]["recipe"]["packages"] == ["proof"]


def test_made_again_it_is_the_same_byte_by_byte(server: Server) -> None:
    operation = server.ctl("build", "verify", "proof")
    assert operation["state"] == "succeeded"


def test_another_server_makes_the_very_same_image(
    server: Server, alpine: dict[str, Any], tmp_path: Path
) -> None:
    ours = server.get("/v1/images/proof")
    with running_server() as other:
        import_template(other, tmp_path, alpine)
        other.ctl("build", "trigger", "proof")
        theirs = other.get("/v1/images/proof")
    assert (theirs["id"], theirs["digest"]) == (ours["id"], ours["digest"])


def test_a_template_that_has_not_changed_is_not_built_again(server: Server) -> None:
    operation = server.ctl("build", "trigger", "proof")
    assert {step["state"] for step in operation["steps"][:-1]} == {"skipped"}


@pytest.mark.parametrize(
    ("change", "says", "place"),
    [
        ({"packages": ["nosuch"]}, "there is no package “nosuch”", "packages"),
        (
            {"commands": ["true", "ls /nowhere"]},
            "“ls /nowhere” ended with exit code",
            "commands[2]",
        ),
    ],
)
def test_a_build_that_fails_names_the_line_keeps_the_log_and_leaves_nothing(
    server: Server, alpine: dict[str, Any], tmp_path: Path, change: Any, says: str, place: str
) -> None:
    import_template(server, tmp_path, alpine | change | {"name": "broken"})
    done = ctl_fails(server, "build", "trigger", "broken")
    operation = json.loads(done.stdout)
    assert says in operation["error"]["text"]
    assert operation["error"]["text"].startswith(place)
    assert says in log_of(server, operation)
    assert not (server.data_dir / "builds" / operation["subject"]["id"]).exists()
    assert not [i for i in server.get("/v1/images")["items"] if i["name"] == "broken"]


def test_a_build_can_be_cancelled_while_its_command_runs(
    server: Server, alpine: dict[str, Any], tmp_path: Path
) -> None:
    endless = alpine | {"name": "endless", "packages": [], "commands": ["echo begun; sleep 3600"]}
    import_template(server, tmp_path, endless)
    operation = server.ctl("build", "trigger", "endless", "--no-wait")
    deadline = time.monotonic() + PATIENCE
    while "begun" not in log_of(server, operation).replace("echo begun", ""):
        assert time.monotonic() < deadline, "the command never began"
        time.sleep(0.2)
    server.ctl("operation", "cancel", operation["id"])
    ctl_fails(server, "operation", "wait", operation["id"])
    build = server.get(f"/v1/builds/{operation['subject']['id']}")
    assert build["state"] == "cancelled"
    assert not (server.data_dir / "builds" / build["id"]).exists()


def test_a_build_that_lost_its_worker_begins_its_vm_anew_and_ends_well(
    server: Server, alpine: dict[str, Any], tmp_path: Path
) -> None:
    slow = alpine | {"name": "slow", "packages": [], "commands": ["echo begun; sleep 5"]}
    import_template(server, tmp_path, slow)
    operation = server.ctl("build", "trigger", "slow", "--no-wait")
    deadline = time.monotonic() + PATIENCE
    while "begun" not in log_of(server, operation).replace("echo begun", ""):
        assert time.monotonic() < deadline, "the command never began"
        time.sleep(0.1)
    server.stop(kill=True)
    server.start()
    ended = server.ctl("operation", "wait", operation["id"])
    assert ended["state"] == "succeeded"
    assert log_of(server, ended).count("$ echo begun") == 2


def test_a_debian_with_a_package_and_an_overlay_boots_with_both_in_place(
    server: Server, tmp_path: Path
) -> None:
    unit = (
        "[Service]\nType=oneshot\n"
        "ExecStart=/bin/sh -c 'hello > /dev/console; cat /etc/proof > /dev/console'\n"
        "[Install]\nWantedBy=multi-user.target\n"
    )
    document = {
        "name": "debian-proof",
        "rootfs": {"distro": "debian", "version": "bookworm"},
        "packages": ["hello"],
        "overlays": [
            {"path": "/etc/proof", "content": f"{SAID_BY_OVERLAY}\n"},
            {"path": "/etc/systemd/system/proof.service", "content": unit},
        ],
        "commands": ["systemctl enable proof.service"],
    }
    import_template(server, tmp_path, document)
    server.ctl("vm", "from-template", "debian-proof", "--name", "debian-proof", "--memory", "256")
    assert server.get("/v1/vms/debian-proof")["agent"]["init"] == "systemd"
    wait_for_console(server, "debian-proof", "Hello, world!", SAID_BY_OVERLAY)
    server.ctl("vm", "delete", "debian-proof", "--force", "--yes")
