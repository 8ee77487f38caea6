"""How a distribution's init gets to know the agent."""

from __future__ import annotations

import pytest

from guest_agent.init_integration import InitFile, edit_inittab, files_for, find_init, integrate

LINE = "::respawn:/usr/bin/nexus-agent service"


class FakeTree:
    def __init__(self, **files: bytes) -> None:
        self.files: dict[str, tuple[bytes, int]] = {
            path: (data, 0o644) for path, data in files.items()
        }
        self.links: dict[str, str] = {}

    def paths(self) -> list[str]:
        return [*self.files, *self.links]

    def read(self, path: str) -> bytes:
        return self.files[path][0]

    def add_file(self, path: str, data: bytes, *, mode: int) -> None:
        self.files[path] = data, mode

    def add_symlink(self, path: str, target: str) -> None:
        self.links[path] = target


@pytest.mark.parametrize(
    ("paths", "init"),
    [
        (["usr/lib/systemd/systemd", "sbin/openrc", "etc/inittab"], "systemd"),
        (["lib/systemd/systemd"], "systemd"),
        (["/usr/lib/systemd/systemd"], "systemd"),
        (["sbin/openrc", "etc/inittab"], "openrc"),
        (["usr/sbin/openrc"], "openrc"),
        (["etc/inittab", "bin/busybox"], "busybox"),
        (["usr/lib/systemd/system/a.service"], None),
        ([], None),
    ],
)
def test_the_init_is_known_by_its_files(paths: list[str], init: str | None) -> None:
    assert find_init(paths) == init


@pytest.mark.parametrize("prefix", ["usr/", ""])
def test_systemd_gets_a_unit_that_is_enabled(prefix: str) -> None:
    unit, link, _ = files_for([f"{prefix}lib/systemd/systemd"])
    assert unit.path == f"{prefix}lib/systemd/system/nexus-agent.service"
    assert unit.mode == 0o644
    assert "\nExecStart=/usr/bin/nexus-agent service\nRestart=always\n" in unit.content
    assert link == InitFile(
        "etc/systemd/system/multi-user.target.wants/nexus-agent.service", target=f"/{unit.path}"
    )


def test_a_guest_of_systemd_gets_an_identity_of_its_own() -> None:
    tree = FakeTree(**{"usr/lib/systemd/systemd": b"", "etc/machine-id": b"b" * 32 + b"\n"})
    assert "etc/machine-id" in integrate(tree)
    assert tree.files["etc/machine-id"] == (b"", 0o444)


def test_openrc_gets_a_script_in_the_default_runlevel() -> None:
    script, link = files_for({"sbin/openrc"})
    assert (script.path, script.mode) == ("etc/init.d/nexus-agent", 0o755)
    assert script.content.startswith("#!/sbin/openrc-run\n")
    assert 'command="/usr/bin/nexus-agent"\ncommand_args="service"\n' in script.content
    assert link == InitFile("etc/runlevels/default/nexus-agent", target="/etc/init.d/nexus-agent")


def test_other_trees_get_nothing() -> None:
    assert files_for(["etc/inittab"]) == files_for([]) == []


def test_the_inittab_gets_one_line_once() -> None:
    before = "::sysinit:/etc/init.d/rcS\ntty1::respawn:/sbin/getty 38400 tty1"
    once = edit_inittab(before)
    assert once == f"{before}\n{LINE}\n"
    assert edit_inittab(once) == once
    assert edit_inittab("") == f"{LINE}\n"


def test_a_tree_of_openrc() -> None:
    tree = FakeTree(**{"sbin/openrc": b"", "etc/inittab": b"x\n"})
    assert integrate(tree) == ["etc/init.d/nexus-agent", "etc/runlevels/default/nexus-agent"]
    assert tree.files["etc/init.d/nexus-agent"][1] == 0o755
    assert tree.links == {"etc/runlevels/default/nexus-agent": "/etc/init.d/nexus-agent"}
    assert tree.files["etc/inittab"] == (b"x\n", 0o644)


def test_a_tree_of_busybox() -> None:
    tree = FakeTree(**{"etc/inittab": b"# caf\xe9\n"})
    assert integrate(tree) == ["etc/inittab"]
    assert tree.read("etc/inittab") == b"# caf\xe9\n" + LINE.encode() + b"\n"
    integrate(tree)
    assert tree.read("etc/inittab").count(LINE.encode()) == 1


def test_a_tree_without_an_init() -> None:
    tree = FakeTree(**{"bin/sh": b""})
    assert integrate(tree) == []
    assert tree.paths() == ["bin/sh"]
