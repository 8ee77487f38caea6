"""What the README promises, done as it is written there."""

from __future__ import annotations

import shlex

from bench.server import ROOT, Server

README = (ROOT / "README.md").read_text()


def commands_after(sentence: str) -> list[list[str]]:
    """The words of the nexusctl commands in the first block after ``sentence``."""
    block = README.partition(sentence)[2].partition("```console\n")[2].partition("```")[0]
    return [
        shlex.split(line.partition("#")[0])[2:]
        for line in block.splitlines()
        if line.startswith("$ nexusctl ")
    ]


def test_the_one_command_and_the_seven_primitives_end_with_ready_vms(server: Server) -> None:
    one = commands_after("One command:")
    seven = commands_after("or the seven primitives")
    assert (len(one), len(seven)) == (1, 7)
    for words in [*one, *seven]:
        server.ctl(*words)
    for name in ("web", "db"):
        assert server.get(f"/v1/vms/{name}")["state"] == "ready"
        server.ctl("vm", "delete", name, "--force", "--yes")
    assert server.run("drive", "inspect", "web").returncode == 4, "a drive made with its VM goes"
    server.ctl("drive", "delete", "disk", "--yes")  # one that was there before it stays
