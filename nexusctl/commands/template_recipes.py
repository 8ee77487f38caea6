"""What ``nexusctl template create`` is told, as a recipe of the API; and a recipe in words."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nexusctl import output
from nexusctl.formatting import mib, size

F = TypeVar("F", bound=Callable[..., Any])

INITS = ("auto", "systemd", "openrc", "busybox", "none")


def recipe_options(function: F) -> F:
    """The options that make a recipe, as the argument ``recipe``."""

    @click.option("--package", multiple=True, help="For apk or apt; repeatable.")
    @click.option("--command", multiple=True, help="For sh, as root, run last; repeatable.")
    @click.option(
        "--overlay",
        multiple=True,
        metavar="SRC:DEST[:MODE[:UID:GID]]",
        help="A file of this machine, put in first; repeatable.",
    )
    @click.option("--env", multiple=True, metavar="NAME=VALUE", help="Repeatable.")
    @click.option("--init", type=click.Choice(INITS), default="auto", show_default=True)
    @click.option("--size", type=int, metavar="MIB", help="Of the image.")
    @functools.wraps(function)
    def wrapper(*args: Any, **options: Any) -> Any:
        recipe = {
            "packages": list(options.pop("package")),
            "commands": list(options.pop("command")),
            "overlays": [_overlay(text) for text in options.pop("overlay")],
            "env": dict(_variable(text) for text in options.pop("env")),
            "init": options.pop("init"),
            "size_mib": options.pop("size"),
        }
        return function(*args, recipe=recipe, **options)

    return wrapper  # type: ignore[return-value]


def recipe_facts(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    """What a recipe says, a fact for each part that says something."""
    env = [f"{name}={value}" for name, value in recipe["env"].items()]
    files = [_file(overlay) for overlay in recipe["overlays"]]
    parts = [
        ("init", recipe["init"]),
        ("size", mib(recipe["size_mib"]) if recipe["size_mib"] else ""),
        ("env", "\n".join(env)),
        ("files", "\n".join(output.columns(files[0], files[1:])) if files else ""),
        ("packages", "\n".join(recipe["packages"])),
        ("commands", "\n".join(command.rstrip("\n") for command in recipe["commands"])),
    ]
    return [(name, output.plain(value)) for name, value in parts if value]


def _overlay(text: str) -> dict[str, str]:
    source, *rest = text.split(":")
    if len(rest) not in (1, 2, 4):
        raise click.BadParameter(f"“{text}” is not SRC:DEST[:MODE[:UID:GID]].")
    path = Path(source)
    try:
        content, executable = path.read_bytes(), bool(path.stat().st_mode & 0o100)
    except OSError as error:
        raise click.BadParameter(f"{source}: {error.strerror}.") from error
    mode = rest[1] if len(rest) > 1 else "0755" if executable else "0644"
    owner = ":".join(rest[2:]) or "0:0"
    return {"path": rest[0], "mode": mode, "owner": owner} | _content(content)


def _content(data: bytes) -> dict[str, str]:
    try:
        return {"content": data.decode()}
    except UnicodeDecodeError:
        return {"content_base64": base64.b64encode(data).decode()}


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"“{text}” is not NAME=VALUE.")
    return name, value


def _file(overlay: dict[str, str]) -> list[str]:
    if overlay["content_base64"]:
        count = len(base64.b64decode(overlay["content_base64"]))
    else:
        count = len(overlay["content"].encode())
    return [overlay["path"], overlay["mode"], overlay["owner"], size(count)]
