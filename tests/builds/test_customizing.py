"""What runs in a build's VM, what comes back from it, and what a failure says.

The VM here is a stand-in that changes files on the disk with debugfs; the real one boots in
``tests/conformance`` and ``tests/live``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from builds import machines
from builds.customizing import Workbench, customize
from builds.log import Output
from builds.machines import MachineSpec
from builds.models import Build
from builds.recipe import parse
from images.trees import Tree
from nexus_site.core.errors import Invalid


class StandIn:
    """Writes ``written`` onto the disk and answers each program with the next of ``answers``."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.written: dict[str, bytes] = {}
        self.ran: list[tuple[list[str], dict[str, str]]] = []
        self.disk = Path()

    @contextmanager
    def boot(
        self, spec: MachineSpec, *, check: Callable[[], None], note: Callable[[str], None]
    ) -> Iterator[StandIn]:
        self.disk = spec.disk
        yield self
        for path, data in self.written.items():
            source = spec.disk.with_name("source")
            source.write_bytes(data)
            script = (
                f"cd {path.rpartition('/')[0]}\nrm {path}\nwrite {source} {path.split('/')[-1]}"
            )
            subprocess.run(
                ["debugfs", "-w", "-f", "-", spec.disk],
                input=script, text=True, check=True, capture_output=True,
            )  # fmt: skip

    def discard(self, directory: Path) -> None:
        pass

    def execute(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        output: Callable[[bytes], None],
        timeout: float,
    ) -> int:
        self.ran.append((list(argv), dict(env or {})))
        code, said = self.answers.pop(0) if self.answers else (0, b"")
        output(said)
        return code


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(machines, "_provider", stand_in)
    return stand_in


@pytest.fixture
def bench(tmp_path: Path, data_dir: Path) -> Workbench:
    (data_dir / "builds").mkdir(exist_ok=True)
    return Workbench(
        tmp_path, lambda text: None, lambda: Output(Build()), lambda: None, lambda text: None
    )


@pytest.fixture
def alpine(tree: Tree) -> Tree:
    tree.add_file("sbin/apk", b"elf", mode=0o755, mtime=1000)
    tree.add_file("etc/hosts", b"127.0.0.1 localhost\n", mtime=1000)
    return tree


def test_packages_come_before_commands_each_word_by_itself(
    machine: StandIn, alpine: Tree, bench: Workbench
) -> None:
    recipe = parse({"packages": ["curl", "jq=1.7"], "commands": ["echo $A"], "env": {"A": "b c"}})
    customize(alpine, recipe, 64, bench)
    (apk, env), (shell, _) = machine.ran
    assert apk == ["apk", "add", "--no-cache", "--no-progress", "--", "curl", "jq=1.7"]
    assert shell == ["/bin/sh", "-c", "echo $A"]
    assert env["A"] == "b c"


def test_debian_gets_its_lists_first_and_starts_no_service(
    machine: StandIn, tree: Tree, bench: Workbench
) -> None:
    tree.add_file("usr/bin/apt-get", b"elf", mode=0o755)
    tree.add_directory("usr/sbin")
    done = customize(tree, parse({"packages": ["nginx"]}), 64, bench)
    programs = [argv for argv, _ in machine.ran]
    assert [argv[-1] for argv in programs] == ["--error-on=any", "nginx"]
    assert machine.ran[0][1]["DEBIAN_FRONTEND"] == "noninteractive"
    assert "usr/sbin/policy-rc.d" not in done


def test_what_the_machine_wrote_is_in_the_tree_and_its_own_files_are_not(
    machine: StandIn, alpine: Tree, bench: Workbench
) -> None:
    machine.written = {"/etc/hosts": b"10.0.2.15 nexus-build\n", "/made": b"by a command"}
    done = customize(alpine, parse({"commands": ["x"]}), 64, bench)
    assert done.read("made") == b"by a command"
    assert done.read("etc/hosts") == b"127.0.0.1 localhost\n"
    assert not machine.disk.exists()


@pytest.mark.parametrize(
    ("said", "package"),
    [
        (b"ERROR: unable to select packages:\n  nosuch (no such package):\n", "nosuch"),
        (b"E: Unable to locate package nosuch\n", "nosuch"),
        (b"E: Package 'old' has no installation candidate\n", "old"),
    ],
)
def test_an_unknown_package_is_named(
    machine: StandIn, alpine: Tree, bench: Workbench, said: bytes, package: str
) -> None:
    machine.answers = [(1, said)]
    with pytest.raises(Invalid, match=f"no package “{package}”") as caught:
        customize(alpine, parse({"packages": ["curl", package]}), 64, bench)
    assert caught.value.code == "package-unknown"


def test_a_command_that_fails_is_named_by_its_place_with_its_last_words(
    machine: StandIn, alpine: Tree, bench: Workbench
) -> None:
    machine.answers = [(0, b""), (3, b"line 1\nmake: *** No rule\n")]
    with pytest.raises(
        Invalid, match=r"commands\[2\]: “make all” ended with exit code 3"
    ) as caught:
        customize(alpine, parse({"commands": ["true", "make all\n# more"]}), 64, bench)
    assert "No rule" in caught.value.detail
    assert len(machine.ran) == 2


def test_packages_without_a_package_manager_are_refused_before_any_boot(
    machine: StandIn, tree: Tree, bench: Workbench
) -> None:
    with pytest.raises(Invalid, match="neither apk nor apt"):
        customize(tree, parse({"packages": ["curl"]}), 64, bench)
    assert machine.disk == Path()
