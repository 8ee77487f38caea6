"""Container images: layers in order, whiteouts, both kinds of archives, and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from images.formats import oci
from images.formats.rootfs import detect, read_rootfs
from images.trees import Tree
from nexus_site.core.errors import Invalid
from tests.images.formats.archive_files import (
    INDEX,
    LAYER,
    MANIFEST,
    Layout,
    directory,
    docker_archive,
    file,
    file_of,
    image,
    layer,
    pax,
    symlink,
    write_tar,
)

Change = Callable[[Layout, dict[str, Any]], dict[str, Any]]

CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {
        "Env": ["PATH=/bin", "A=b=c"],
        "Entrypoint": ["/init"],
        "Cmd": ["serve", "--all"],
        "WorkingDir": "/srv",
        "User": "1000:1000",
        "Labels": {"not": "kept"},
    },
}
KEPT = {
    "env": {"PATH": "/bin", "A": "b=c"},
    "entrypoint": ["/init"],
    "cmd": ["serve", "--all"],
    "working_dir": "/srv",
    "user": "1000:1000",
}
NOTHING: dict[str, Any] = {"env": {}, "entrypoint": [], "cmd": [], "working_dir": "", "user": ""}


def unpack(archive: Path, arch: str = "x86_64") -> tuple[Tree, Mapping[str, Any]]:
    tree = Tree.create(archive.with_name("tree"))
    content = read_rootfs(archive, detect(archive), tree, arch=arch)
    return tree, content.config


def files(tree: Tree) -> dict[str, str]:
    """The files with their text; the other entries with their kind."""
    return {
        entry.path: tree.read(entry.path).decode() if entry.content else entry.kind.value
        for entry in tree
        if entry.path
    }


def refusal(archive: Path, arch: str = "x86_64") -> Invalid:
    with pytest.raises(Invalid) as raised:
        unpack(archive, arch)
    return raised.value


LAYERS = [
    layer(directory("etc"), file("etc/a", b"1"), file("etc/b", b"1"), file("bin/x", b"1")),
    layer(file("etc/.wh.a"), file("etc/b", b"2"), file("etc/c", b"2")),
]


@pytest.mark.parametrize("compression", ["", "gz", "zst"])
def test_layers_are_applied_in_order(tmp_path: Path, compression: str) -> None:
    layout = Layout()
    second = layer(file("etc/.wh.a"), file("etc/b", b"2"), compression=compression)
    media_type = LAYER + {"": "", "gz": "+gzip", "zst": "+zstd"}[compression]
    manifest = layout.manifest([LAYERS[0], second], CONFIG, media_type)
    archive = layout.write(tmp_path / "image", manifest)
    assert detect(archive) == "oci"
    tree, config = unpack(archive)
    assert files(tree) == {
        "etc": "directory", "bin": "directory", "etc/b": "2", "bin/x": "1",
    }  # fmt: skip
    assert config == KEPT


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_the_whole_archive_may_be_compressed(tmp_path: Path, compression: str) -> None:
    layout = Layout()
    manifest = layout.manifest(LAYERS)
    archive = layout.write(tmp_path / "image", manifest, compression=compression)
    tree, config = unpack(archive)
    assert (tree.read("etc/c"), config) == (b"2", NOTHING)
    assert {path.name for path in tree.directory.iterdir()} == {"content", "manifest.jsonl"}


def test_docker_archives_are_read(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "image", LAYERS, config=CONFIG)
    assert detect(archive) == "docker"
    tree, config = unpack(archive)
    assert files(tree)["etc/b"] == "2"
    assert config == KEPT


def test_docker_archives_may_name_a_layer_twice_by_a_link(tmp_path: Path) -> None:
    manifest = [{"Config": "c.json", "Layers": [f"{'1' * 64}/layer.tar", f"{'2' * 64}/layer.tar"]}]
    archive = write_tar(
        tmp_path / "image",
        file_of(f"{'1' * 64}/layer.tar", LAYERS[0]),
        symlink(f"{'2' * 64}/layer.tar", f"../{'1' * 64}/layer.tar"),
        file("c.json", b"{}"),
        file("manifest.json", json.dumps(manifest).encode()),
    )
    tree = Tree.create(tmp_path / "tree")
    assert read_rootfs(archive, "docker", tree).config == NOTHING
    assert tree.read("bin/x") == b"1"


@pytest.mark.parametrize(
    ("second", "left"),
    [
        ([file("d/.wh.a")], {"d/b", "d/sub", "d/sub/c"}),
        ([file(".wh.d")], set[str]()),
        ([file("d/.wh.sub")], {"d/a", "d/b"}),
        ([file("d/.wh..wh..opq")], set[str]()),
        ([file("d/.wh..wh..opq"), file("d/new")], {"d/new"}),
        ([file("d/new"), file("d/.wh..wh..opq")], {"d/new"}),
        ([file(".wh.d"), file("d/sub/new")], {"d/sub", "d/sub/new"}),
        ([file("d/sub/new"), file(".wh.d")], {"d/sub", "d/sub/new"}),
        ([file("d/a"), file("d/.wh.a")], {"d/a", "d/b", "d/sub", "d/sub/c"}),
        ([file("d/.wh.none")], {"d/a", "d/b", "d/sub", "d/sub/c"}),
        ([file("d/.wh..wh.plnk")], {"d/a", "d/b", "d/sub", "d/sub/c"}),
        ([file("link/.wh.a")], {"d/b", "d/sub", "d/sub/c"}),
        ([file("out/.wh.a")], {"d/a", "d/b", "d/sub", "d/sub/c"}),
    ],
)
def test_whiteouts_hide_what_earlier_layers_brought(
    tmp_path: Path, second: list[bytes], left: set[str]
) -> None:
    first = [file("d/a"), file("d/b"), file("d/sub/c"), symlink("link", "d")]
    outside = symlink("out", str(tmp_path))
    (tmp_path / "a").write_text("stays")
    tree, _ = unpack(image(tmp_path / "image", layer(*first, outside), layer(*second)))
    assert {path for path in tree.paths("d") if path != "d"} == left
    assert not any(".wh." in path for path in tree.paths())
    assert (tmp_path / "a").read_text() == "stays"


@pytest.mark.parametrize(
    "entry",
    [
        file("d/.wh...", b""),
        file(".wh..", b""),
        file(".wh.", b""),
        file("../.wh.a", b""),
        pax({b"path": b"d/../../.wh.etc"}) + file("x"),
    ],
)
def test_whiteouts_that_point_outside_are_refused(tmp_path: Path, entry: bytes) -> None:
    error = refusal(image(tmp_path / "image", layer(file("d/a")), layer(entry)))
    assert error.code == "unsafe-entry"


def test_a_layer_may_replace_a_link_by_a_directory_and_back(tmp_path: Path) -> None:
    layers = [
        layer(symlink("lib", "usr/lib"), file("usr/lib/a", b"a"), file("data/x", b"x")),
        layer(file("lib/b", b"b"), symlink("data", "/etc")),
        layer(directory("lib"), file("lib/c", b"c"), file("data/y", b"y")),
    ]
    tree, _ = unpack(image(tmp_path / "image", *layers))
    found = files(tree)
    assert found["usr/lib/b"] == "b"
    assert (found["lib"], found["lib/c"]) == ("directory", "c")
    assert (found["data"], found["etc/y"]) == ("symlink", "y")


def platform(architecture: str, **more: str) -> dict[str, Any]:
    return {"platform": {"os": "linux", "architecture": architecture, **more}}


@pytest.mark.parametrize(("arch", "text"), [("x86_64", b"amd64"), ("aarch64", b"arm64")])
def test_the_manifest_of_the_hosts_architecture_is_taken(
    tmp_path: Path, arch: str, text: bytes
) -> None:
    layout = Layout()
    manifests = [
        layout.manifest([layer(file("f", b"arm64"))], **platform("arm64", variant="v8")),
        layout.manifest([layer(file("f", b"newest"))], **platform("amd64", variant="v3")),
        layout.manifest([layer(file("f", b"amd64"))], **platform("amd64")),
        layout.manifest([layer(file("f", b"proof"))], **platform("unknown")),
    ]
    index = layout.blob(json.dumps({"manifests": manifests}).encode(), INDEX)
    tree, _ = unpack(layout.write(tmp_path / "image", index), arch)
    assert tree.read("f") == text


def test_an_image_for_another_architecture_is_refused(tmp_path: Path) -> None:
    layout = Layout()
    other = layout.manifest(LAYERS, **platform("s390x"))
    error = refusal(layout.write(tmp_path / "image", other))
    assert (error.code, "s390x" in error.detail) == ("wrong-architecture", True)


def test_an_image_without_layers_holds_nothing(tmp_path: Path) -> None:
    assert refusal(image(tmp_path / "image")).code == "archive-empty"


def test_a_configuration_for_another_architecture_is_refused(tmp_path: Path) -> None:
    error = refusal(image(tmp_path / "image", *LAYERS, config={"architecture": "arm64"}))
    assert error.code == "wrong-architecture"


def test_several_images_in_one_archive_are_not_guessed_at(tmp_path: Path) -> None:
    layout = Layout()
    manifests = [layout.manifest(LAYERS), layout.manifest(LAYERS[:1])]
    assert refusal(layout.write(tmp_path / "image", *manifests)).code == "image-ambiguous"


def blob_of(descriptor: Mapping[str, Any]) -> str:
    return f"blobs/sha256/{descriptor['digest'][7:]}"


def change_file(change: Callable[[bytes], bytes | None], *, a_layer: bool = True) -> Change:
    """Change or remove a layer, or else the manifest, behind its digest's back."""

    def apply(layout: Layout, descriptor: dict[str, Any]) -> dict[str, Any]:
        name = blob_of(descriptor)
        if a_layer:
            name = next(name for name, data in layout.files.items() if data == LAYERS[0])
        data = change(layout.files.pop(name))
        layout.files |= {name: data} if data is not None else {}
        return descriptor

    return apply


def another_manifest(data: bytes) -> Change:
    return lambda layout, _: layout.blob(data, MANIFEST)


def another_config(config: Mapping[str, Any]) -> Change:
    return lambda layout, _: layout.manifest(LAYERS, config)


CHANGES: dict[str, Change] = {
    "layer changed": change_file(lambda data: data.replace(b"1", b"7", 1)),
    "layer shorter": change_file(lambda data: data[:-512]),
    "layer missing": change_file(lambda _: None),
    "manifest changed": change_file(lambda data: data.replace(b" ", b"\n"), a_layer=False),
    "manifest missing": change_file(lambda _: None, a_layer=False),
    "digest of another kind": lambda _, found: found | {"digest": "md5:" + "0" * 32},
    "digest that is a path": lambda _, found: found | {"digest": "sha256:../../../etc/passwd"},
    "no digest": lambda _, found: found | {"digest": None},
    "a list for a digest": lambda _, found: found | {"digest": ["sha256"]},
    "a wrong size": lambda _, found: found | {"size": 5},
    "manifest that is no JSON": another_manifest(b"{" * 100),
    "manifest of nested lists": another_manifest(b"[" * 200_000),
    "manifest that is a list": another_manifest(b"[]"),
    "layers that are a text": another_manifest(b'{"layers": "all"}'),
    "config that is a text": another_config({"config": "all"}),
    "env that is a number": another_config({"config": {"Env": [1]}}),
    "env with a NUL": another_config({"config": {"Env": ["A=\0"]}}),
    "layers that do not fit": another_config({"rootfs": {"diff_ids": ["sha256:0"]}}),
    "layers that are others": another_config({"rootfs": {"diff_ids": ["sha256:0"] * 2}}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_match_is_damaged(tmp_path: Path, change: str) -> None:
    layout = Layout()
    descriptor = CHANGES[change](layout, layout.manifest(LAYERS, CONFIG))
    assert refusal(layout.write(tmp_path / "image", descriptor)).code == "archive-damaged"


def test_indexes_that_go_down_without_end_are_refused(tmp_path: Path) -> None:
    layout = Layout()
    descriptor = layout.manifest(LAYERS)
    for _ in range(20):
        descriptor = layout.blob(json.dumps({"manifests": [descriptor]}).encode(), INDEX)
    assert "circle" in refusal(layout.write(tmp_path / "image", descriptor)).text


def test_links_between_layers_that_go_round_are_refused(tmp_path: Path) -> None:
    names = [f"{digit * 64}/layer.tar" for digit in "12"]
    archive = write_tar(
        tmp_path / "image",
        symlink(names[0], f"../{names[1]}"),
        symlink(names[1], f"../{names[0]}"),
        file("manifest.json", json.dumps([{"Config": "c.json", "Layers": names}]).encode()),
        file("c.json", b"{}"),
    )
    with pytest.raises(Invalid) as raised:
        read_rootfs(archive, "docker", Tree.create(tmp_path / "tree"))
    assert raised.value.code == "archive-damaged"


def test_a_docker_archive_may_not_lie_about_its_layers(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "image", LAYERS)
    content = archive.read_bytes()
    archive.write_bytes(content.replace(padded_text(b"2"), padded_text(b"3")))
    assert refusal(archive).code == "archive-damaged"


def padded_text(text: bytes) -> bytes:
    return text + bytes(511)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "missing.json", ""])
def test_a_docker_archive_names_only_what_is_in_it(tmp_path: Path, name: str) -> None:
    manifest = [{"Config": name, "Layers": []}]
    archive = docker_archive(tmp_path / "image", LAYERS, manifest=manifest)
    assert refusal(archive).code == "archive-damaged"


def test_layers_of_unknown_types_are_refused_by_name(tmp_path: Path) -> None:
    layout = Layout()
    manifest = layout.manifest(LAYERS, media_type=LAYER + "+gzip+encrypted")
    error = refusal(layout.write(tmp_path / "image", manifest))
    assert (error.code, "encrypted" in error.text) == ("archive-unsupported", True)


def test_a_manifest_of_a_hundred_thousand_layers_is_refused(tmp_path: Path) -> None:
    layout = Layout()
    empty = layout.blob(b"", LAYER)
    document = {"config": layout.blob(b"{}"), "layers": [{"digest": empty["digest"]}] * 100_000}
    archive = layout.write(tmp_path / "image", layout.blob(json.dumps(document).encode(), MANIFEST))
    assert refusal(archive).code == "archive-too-large"


def test_documents_and_archives_have_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout()
    large = layout.blob(b" " * (5 << 20), MANIFEST)
    assert refusal(layout.write(tmp_path / "image", large)).code == "archive-too-large"
    monkeypatch.setattr(oci, "MAX_FILES", 3)
    (tmp_path / "more").mkdir()
    archive = image(tmp_path / "more" / "image", *LAYERS)
    assert refusal(archive).code == "archive-too-large"
