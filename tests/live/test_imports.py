"""Files of one's own: container images, archives and disks become images that boot."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from bench.server import Server
from tests.images.formats.qcow2_images import Cluster, make_qcow2
from tests.servers import ctl_fails


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid = len(content), 0o644, 1000
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def docker_archive(path: Path, *layers: dict[str, bytes], config: dict[str, Any]) -> Path:
    """What ``docker save`` writes, of these layers."""
    blobs = [archive(layer) for layer in layers]
    names = [f"{hashlib.sha256(blob).hexdigest()}/layer.tar" for blob in blobs]
    diff_ids = [f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in blobs]
    about = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["test:1"], "Layers": names}]
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(about).encode(),
    }
    path.write_bytes(archive(files | dict(zip(names, blobs, strict=True))))
    return path


def test_a_container_image_boots_with_the_agent_alone(server: Server, tmp_path: Path) -> None:
    release = b'NAME="Tiny"\nPRETTY_NAME="Tiny Container 1"\n'
    file = docker_archive(
        tmp_path / "tiny.tar",
        {"etc/os-release": release, "etc/gone": b"x", "srv/data": b"1"},
        {"etc/.wh.gone": b"", "srv/data": b"2"},
        config={"Env": ["GREETING=hello"], "Entrypoint": ["/srv/run"], "Cmd": ["-v"]},
    )
    server.ctl("image", "import", str(file), "--name", "tiny")
    image = server.get("/v1/images/tiny")
    assert (image["os_name"], image["init"]) == ("Tiny Container 1", "none")
    names = {f["name"] for f in server.get("/v1/images/tiny/files?path=/etc")["items"]}
    assert "gone" not in names
    rootfs = server.get(f"/v1/rootfs/{image['rootfs']['id']}")
    assert rootfs["config"]["entrypoint"] == ["/srv/run"]
    assert rootfs["config"]["env"] == {"GREETING": "hello"}
    server.ctl("vm", "from-image", "tiny", "--name", "tiny", "--memory", "128")
    vm = server.get("/v1/vms/tiny")
    assert (vm["state"], vm["agent"]["init"], vm["agent"]["os"]) == (
        "ready",
        "none",
        "Tiny Container 1",
    )
    server.ctl("vm", "delete", "tiny", "--force", "--yes")


def test_a_directory_becomes_an_image_with_its_owners(server: Server, tmp_path: Path) -> None:
    directory = tmp_path / "tree"
    (directory / "etc").mkdir(parents=True)
    (directory / "etc" / "os-release").write_text('PRETTY_NAME="From a directory"\n')
    (directory / "etc" / "link").symlink_to("os-release")
    server.ctl("image", "import", str(directory), "--name", "from-directory")
    files = {f["name"]: f for f in server.get("/v1/images/from-directory/files?path=/etc")["items"]}
    assert files["link"]["target"] == "os-release"
    assert files["os-release"]["uid"] == (directory / "etc" / "os-release").stat().st_uid


def test_a_disk_image_becomes_an_image(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    (tmp_path / "tree" / "etc" / "os-release").write_text('PRETTY_NAME="From a disk"\n')
    raw, qcow2 = tmp_path / "disk.ext4", tmp_path / "disk.qcow2"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "tree", raw, "16M"], check=True)
    disk, size = raw.read_bytes(), 1 << 16
    clusters = [Cluster(disk[at : at + size], "compressed") for at in range(0, len(disk), size)]
    qcow2.write_bytes(make_qcow2(clusters, cluster_bits=16))
    for file, form in ((raw, "ext4"), (qcow2, "qcow2")):
        server.ctl("image", "import", str(file), "--name", f"from-{form}")
        image = server.get(f"/v1/images/from-{form}")
        assert image["os_name"] == "From a disk"
        assert server.get(f"/v1/rootfs/{image['rootfs']['id']}")["format"] == form


def test_an_exported_image_can_be_imported_again(server: Server, tmp_path: Path) -> None:
    for form in ("ext4.zst", "tar"):
        file = tmp_path / f"tiny.{form}"
        server.ctl("image", "export", "tiny", "-o", str(file), "--format", form)
        server.ctl("image", "import", str(file), "--name", f"again-{form.replace('.', '-')}")
        image = server.get(f"/v1/images/again-{form.replace('.', '-')}")
        assert image["os_name"] == "Tiny Container 1"


def test_a_file_that_is_no_image_is_refused_and_nothing_is_kept(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not an image\n" * 1000)
    done = ctl_fails(server, "image", "import", str(file), "--name", "notes")
    assert json.loads(done.stdout)["error"]["code"] in ("format-unknown", "archive-damaged")
    assert not list((server.data_dir / "assets" / "uploads").iterdir())
    assert not [r for r in server.get("/v1/rootfs")["items"] if r["distro"] == "notes"]


def test_a_file_with_another_checksum_is_refused(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "some.tar"
    file.write_bytes(archive({"a": b"1"}))
    done = ctl_fails(server, "image", "import", str(file), "--sha256", "0" * 64)
    assert "checksum" in done.stderr
    assert not list((server.data_dir / "assets" / "uploads").iterdir())
