"""Overlays, environment and the choice of the init."""

from __future__ import annotations

import json

import pytest

from builds.embedding import add_environment, add_overlays, choose_init
from builds.recipe import Recipe, parse
from images.trees import Tree
from nexus_site.core.errors import Invalid


def overlay(**values: object) -> Recipe:
    return parse({"overlays": [values]})


def test_an_overlay_has_its_content_mode_and_owner(tree: Tree) -> None:
    recipe = overlay(path="/srv/app/run", content="hi\n", mode="4750", owner="1000:33")
    assert add_overlays(tree, recipe) == ["srv/app/run"]
    entry = tree.entry("srv/app/run")
    assert (entry.mode, entry.uid, entry.gid) == (0o4750, 1000, 33)
    assert tree.read("srv/app/run") == b"hi\n"


def test_bytes_come_in_base64(tree: Tree) -> None:
    add_overlays(tree, overlay(path="/bin/x", content_base64="AAEC/w=="))
    assert tree.read("bin/x") == b"\0\x01\x02\xff"


def test_a_link_on_the_way_is_followed_inside_the_tree(tree: Tree) -> None:
    tree.add_directory("usr/lib")
    tree.add_symlink("lib", "usr/lib")
    tree.add_symlink("outside", "../../../../etc")
    assert add_overlays(tree, overlay(path="/lib/a")) == ["usr/lib/a"]
    assert add_overlays(tree, overlay(path="/outside/b")) == ["etc/b"]


def test_an_overlay_below_a_file_names_its_place_in_the_recipe(tree: Tree) -> None:
    tree.add_file("etc/passwd", b"")
    with pytest.raises(Invalid, match=r"overlays\[1\]\.path: .*passwd") as caught:
        add_overlays(tree, overlay(path="/etc/passwd/x"))
    assert caught.value.code == "overlay-impossible"


def test_an_overlay_in_the_place_of_a_directory_is_refused(tree: Tree) -> None:
    tree.add_directory("etc")
    with pytest.raises(Invalid, match=r"overlays\[1\]"):
        add_overlays(tree, overlay(path="/etc"))


def test_variables_are_there_for_shells_and_for_logins(tree: Tree) -> None:
    tree.add_file("etc/environment", b'PATH="/bin"\nLANG="C"\n')
    recipe = parse({"env": {"LANG": "C.UTF-8", "GREETING": "it's me; $HOME"}})
    add_environment(tree, {"env": {"LANG": "de", "FROM_OCI": "1"}}, recipe)
    shell = tree.read("etc/profile.d/nexus-image.sh").decode()
    assert "export GREETING='it'\"'\"'s me; $HOME'\n" in shell
    assert "export LANG=C.UTF-8\n" in shell
    lines = tree.read("etc/environment").decode().splitlines()
    assert lines == ['PATH="/bin"', 'FROM_OCI="1"', 'GREETING="it\'s me; $HOME"', 'LANG="C.UTF-8"']


def test_what_an_oci_image_said_about_itself_is_kept(tree: Tree) -> None:
    config = {"env": {}, "entrypoint": ["/init"], "cmd": ["-v"]}
    add_environment(tree, config, parse({}))
    assert json.loads(tree.read("etc/nexus/oci.json")) == config
    assert "etc/environment" not in tree


@pytest.mark.parametrize(
    ("files", "wish", "init"),
    [
        ([], "auto", "none"),
        (["sbin/openrc"], "auto", "openrc"),
        (["usr/lib/systemd/systemd"], "auto", "systemd"),
        (["usr/lib/systemd/systemd"], "none", "none"),
        (["etc/inittab"], "busybox", "busybox"),
    ],
)
def test_the_init_is_found_by_looking_unless_the_recipe_says(
    tree: Tree, files: list[str], wish: str, init: str
) -> None:
    for path in files:
        tree.add_file(path, b"")
    assert choose_init(tree, wish) == init


def test_an_init_that_is_not_there_is_an_error_naming_what_is(tree: Tree) -> None:
    tree.add_file("sbin/openrc", b"")
    with pytest.raises(Invalid, match="wants systemd, but the file system has openrc"):
        choose_init(tree, "systemd")


def test_each_vm_of_a_debian_image_makes_its_own_ssh_host_keys(tree: Tree) -> None:
    tree.add_file("usr/lib/systemd/systemd", b"")
    tree.add_file("usr/sbin/sshd", b"")
    choose_init(tree, "auto")
    drop_in = tree.read("etc/systemd/system/ssh.service.d/nexus-host-keys.conf").decode()
    assert drop_in.index("ssh-keygen -A") < drop_in.index("sshd -t")
