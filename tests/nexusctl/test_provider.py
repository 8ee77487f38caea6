"""``nexusctl provider`` and ``nexusctl rootfs`` and the real API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from images.models import Provider, Rootfs
from images.services import rootfs_path
from nexus_site.core.ids import NexusID
from tests.factories import make_image
from tests.images.providers.alpine_mirror import mini_rootfs
from tests.nexusctl import answers as a
from tests.nexusctl.conftest import Outcome

Ctl = Callable[..., Outcome]
NOWHERE = "base_url=http://127.0.0.1:1/alpine"


def test_a_provider_from_its_making_to_its_end(ctl: Ctl) -> None:
    plan = ctl("provider", "create", "mirror", "--type", "alpine", "--set", NOWHERE, "--dry-run")
    assert (plan.code, Provider.objects.filter(name="mirror").exists()) == (0, False)
    made = ctl(
        *("provider", "create", "mirror", "--type", "alpine", "--set", NOWHERE),
        *("--set", "keyring=", "--position", "5"),
    )
    assert made.out.startswith("mirror  ")
    assert ctl("provider", "list").out.splitlines()[1].split()[:3] == ["mirror", "alpine", "yes"]
    asked = ctl("provider", "refresh", "mirror")
    assert (asked.code, "127.0.0.1 cannot be reached" in asked.err) == (1, True)
    shown = ctl("provider", "inspect", "mirror").out
    assert "base_url    http://127.0.0.1:1/alpine\n" in shown
    assert "problem     127.0.0.1 cannot be reached" in shown
    done = ctl("provider", "update", "mirror", "--name", "ours", "--disable", "--position", "7")
    assert done.out.startswith("ours  ")
    ours = Provider.objects.get(name="ours")
    assert (ours.enabled, ours.position) == (False, 7)
    assert ours.config["base_url"].endswith("/alpine"), "what is left out stays"
    other = "base_url=http://127.0.0.1:2/alpine"
    assert ctl("provider", "update", "ours", "--set", other, "--enable").code == 0
    ours.refresh_from_db()
    assert ours.config == {"base_url": "http://127.0.0.1:2/alpine", "keyring": ""}
    assert "Say --yes" in ctl("provider", "delete", "ours").err
    assert ctl("provider", "delete", "ours", "--yes").code == 0
    assert ctl("provider", "inspect", "ours").code == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "x"), 2, "Missing option '--type'"),
        (("create", "x", "--type", "nope"), 1, "Known: embedded, alpine, debian, tarball, oci"),
        (("create", "x", "--type", "alpine", "--set", "base_url"), 2, "write FIELD=VALUE"),
        (("create", "x", "--type", "alpine", "--set", "base_url=file:///etc"), 1, "base_url"),
        (("create", "x", "--type", "alpine", "--set", "nothing=x"), 1, "nothing"),
        (("create", "x", "--type", "tarball"), 1, "config.distro: This is required."),
        (("create", "embedded", "--type", "embedded"), 5, "already"),
        (("create", "Not A Name", "--type", "embedded"), 1, "lower-case letters"),
        (("update", "embedded", "--position", "-1"), 1, "position"),
        (("update", "nope", "--name", "x"), 4, "There is no provider “nope”."),
        (("refresh", "nope"), 4, "nexusctl provider list"),
        (("delete", "nope", "--yes"), 4, "There is no provider “nope”."),
    ],
)
def test_wrong_usage_of_providers(ctl: Ctl, words: tuple[str, ...], code: int, said: str) -> None:
    done = ctl("provider", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_the_types_say_what_they_need(ctl: Ctl) -> None:
    lines = ctl("provider", "types").out.splitlines()
    assert lines[1].split()[:3] == ["embedded", "-", "no"]
    assert [line.split()[1:3] for line in lines if line.startswith("tarball")][4:6] == [
        ["distro", "yes"],
        ["version", "yes"],
    ]


def test_a_rootfs_from_its_file_to_its_end(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "void.tgz"
    file.write_bytes(mini_rootfs("1"))
    assert (
        "Would: Import Void 1" in ctl("rootfs", "import", "void", "1", str(file), "--dry-run").out
    )
    made = ctl("rootfs", "import", "void", "1", str(file))
    assert made.code == 0, made.err
    name, _, ref = made.out.strip().rpartition("  ")
    assert name == "void 1"
    rootfs = Rootfs.objects.get(pk=NexusID.parse(ref))
    assert "source       uploaded: void.tgz\n" in ctl("rootfs", "inspect", ref).out
    again = ctl("rootfs", "import", "void", "1", str(file))
    assert (again.code, "was uploaded before" in again.err) == (5, True)
    assert "holds" in ctl("rootfs", "verify", ref).err
    image = make_image(rootfs=rootfs)
    used = ctl("rootfs", "delete", ref, "--yes")
    assert (used.code, image.name in used.err) == (5, True)
    image.delete()
    path = rootfs_path(rootfs)
    path.chmod(0o600)
    path.write_bytes(b"damaged")
    damaged = ctl("rootfs", "verify", ref)
    assert (damaged.code, "✗" in damaged.err) == (1, True)
    assert ctl("rootfs", "delete", ref, "--yes").code == 0
    assert not path.exists()
    assert ctl("rootfs", "inspect", ref).code == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("download", "plan9", "4"), 4, "Available: "),
        (("download", "alpine", "3.23", "--provider", "nope"), 4, "There is no root file system"),
        (("import", "void", "1", "/no/such/file"), 2, "does not exist"),
        (("import", "void", "../1", "/etc/hostname"), 1, "Distribution and version"),
        (("import", "void", "1", "/dev/null"), 1, "The upload is empty."),
        (("import", "void", "1", "/etc/hostname"), 1, "no root file system that Nexus can read"),
        (("verify", "nope"), 4, "There is no rootfs “nope”."),
        (("inspect", "alpine"), 4, "hint: List what there is: nexusctl rootfs installed"),
        (("delete", "nope"), 2, "Say --yes"),
    ],
)
def test_wrong_usage_of_rootfs(ctl: Ctl, words: tuple[str, ...], code: int, said: str) -> None:
    done = ctl("rootfs", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_what_a_container_image_says_about_itself_is_shown(server, nexusctl) -> None:
    config = {
        "env": {"A": "b c"},
        "cmd": ["sh", "-c", "echo \x1b[2J"],
        "user": "",
        "entrypoint": [],
    }
    server.on("GET", "/rootfs/r", a.ROOTFS | {"config": config})
    shown = nexusctl("rootfs", "inspect", "r").out
    assert "env          A=b c\n" in shown
    assert "cmd          sh -c 'echo \\x1b[2J'\n" in shown
    assert "entrypoint" not in shown
    assert json.loads(nexusctl("rootfs", "inspect", "r", "--json").out)["config"] == config
