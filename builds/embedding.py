"""What a build puts into a tree: overlays, environment, the choice of the init."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from builds.recipe import Recipe
from guest_agent.init_integration import find_init
from images.trees import Tree
from nexus_site.core.errors import Invalid, NexusError

AGENT = "usr/bin/nexus-agent"
METADATA = "etc/nexus/image.yaml"
OCI_CONFIG = "etc/nexus/oci.json"
ENVIRONMENT = "etc/environment"
PROFILE = "etc/profile.d/nexus-image.sh"

# sshd's own start checks the keys, so they must be made before it looks.
_MAKE_HOST_KEYS = """\
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
"""
_SSH_DROP_IN = "etc/systemd/system/ssh.service.d/nexus-host-keys.conf"


def add_overlays(tree: Tree, recipe: Recipe) -> list[str]:
    """Put the recipe's files into ``tree``; returns their paths there.

    Directories on the way that are links are followed, inside the tree.
    """
    return [
        _add_overlay(tree, number, overlay) for number, overlay in enumerate(recipe.overlays, 1)
    ]


def _add_overlay(tree: Tree, number: int, overlay: Any) -> str:
    parent, _, name = overlay.path.strip("/").rpartition("/")
    uid, gid = map(int, overlay.owner.split(":"))
    try:
        path = "/".join(filter(None, (tree.resolve(parent), name)))
        tree.add_file(path, overlay.data(), mode=int(overlay.mode, 8), uid=uid, gid=gid)
    except NexusError as error:
        raise Invalid(
            f"overlays[{number}].path: {error.text}",
            hint="Choose another path for it in the template.",
            code="overlay-impossible",
        ) from error
    return path


def add_environment(tree: Tree, config: Mapping[str, Any], recipe: Recipe) -> None:
    """The image's variables for logins, and what an OCI image said about itself."""
    if config:
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        tree.add_file(OCI_CONFIG, text.encode(), mode=0o644)
    env = dict(config.get("env") or {}) | dict(recipe.env)
    if not env:
        return
    shell = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(env.items()))
    tree.add_file(PROFILE, shell.encode(), mode=0o644)
    before = tree.read(ENVIRONMENT).decode("utf-8", "replace") if ENVIRONMENT in tree else ""
    kept = [line for line in before.splitlines() if line.partition("=")[0] not in env]
    lines = [*kept, *(f'{name}="{value}"' for name, value in sorted(env.items()))]
    tree.add_file(ENVIRONMENT, ("\n".join(lines) + "\n").encode(), mode=0o644)


def choose_init(tree: Tree, wish: str) -> str:
    """The init that the image boots: the one that is there, unless the recipe says otherwise."""
    found = find_init(set(tree.paths()))
    if wish == "none" or (wish == "auto" and found is None):
        return "none"
    if wish not in ("auto", found):
        raise Invalid(
            f"init: the recipe wants {wish}, but the file system has {found or 'none'}.",
            hint="Install it with packages, or choose “auto”.",
            code="init-missing",
        )
    if found == "systemd" and tree.resolve("usr/sbin/sshd") in tree:
        tree.add_file(_SSH_DROP_IN, _MAKE_HOST_KEYS.encode(), mode=0o644)
    return str(found)
