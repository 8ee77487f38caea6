"""nexusctl vm provision, vm provision-log: what a VM is given when it starts."""

from __future__ import annotations

import base64
import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nexusctl import output
from nexusctl.app import App, Command, Work, dry_run_option, pass_app
from nexusctl.formatting import ago, size, when

F = TypeVar("F", bound=Callable[..., Any])

MAX_FILE = 1 << 20  # the server says more; nobody waits for a DVD to be read first
_FILE = re.compile(r"(?P<local>.+?):(?P<path>/[^:]*)(?::(?P<mode>[0-7]{3,4}))?")


def _pairs(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if wrong := [name for name, sign, _ in pairs if not sign or not name]:
        raise click.BadParameter(f"“{wrong[0]}” is no NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _secrets(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=@FILE, or NAME, which is asked for; a value on the command line would be seen."""
    found = {}
    for value in values:
        name, sign, source = value.partition("=")
        if sign and not source.startswith("@"):
            raise click.BadParameter(
                f"The value of {name} is not to be on the command line: {name} alone asks for it, "
                f"{name}=@FILE reads it."
            )
        found[name] = _text_of(Path(source[1:])) if sign else _asked(name)
    return found


def _asked(name: str) -> str:
    """Typed at a terminal, else the next line of the input."""
    if sys.stdin.isatty():
        answer: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
        return answer
    line = sys.stdin.readline()
    if not line:
        raise click.BadParameter(f"The input has no line for the value of {name}.")
    return line.rstrip("\n")


def _files(_: click.Context, option: click.Parameter, values: tuple[str, ...]) -> list[Any]:
    return [_file(value, secret=option.name == "secret_files") for value in values]


def _file(value: str, *, secret: bool) -> dict[str, Any]:
    parts = _FILE.fullmatch(value)
    if parts is None:
        raise click.BadParameter(f"“{value}” is no LOCAL:/PATH or LOCAL:/PATH:MODE.")
    content = _read(Path(parts["local"]))
    if len(content) > MAX_FILE:
        raise click.BadParameter(f"{parts['local']} has more than 1 MiB.")
    return {
        "path": parts["path"],
        "mode": parts["mode"] or "",
        "content": base64.b64encode(content).decode(),
        "encoding": "base64",
        "secret": secret,
    }


def _script(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    return value and _text_of(Path(value))


def _text_of(path: Path) -> str:
    try:
        return _read(path).decode()
    except UnicodeDecodeError:
        raise click.BadParameter(f"{path} is not text.") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE + 1)
    except OSError as error:
        raise click.BadParameter(f"{path}: {(error.strerror or str(error)).lower()}.") from error


_OPTIONS = (
    click.option("--env", multiple=True, metavar="NAME=VALUE", callback=_pairs, help="A variable."),
    click.option(
        "--secret-env",
        multiple=True,
        metavar="NAME[=@FILE]",
        callback=_secrets,
        help="A secret one: its value is asked for, or a line of the input, or a file's text.",
    ),
    click.option(
        "--hosts", multiple=True, metavar="NAME=ADDRESS", callback=_pairs, help="A host name."
    ),
    click.option("--dns", multiple=True, metavar="ADDRESS", help="A name server."),
    click.option(
        "--file",
        "files",
        multiple=True,
        metavar="LOCAL:/PATH[:MODE]",
        callback=_files,
        help="A file of up to 1 MiB.",
    ),
    click.option(
        "--secret-file",
        "secret_files",
        multiple=True,
        metavar="LOCAL:/PATH[:MODE]",
        callback=_files,
        help="A file that is kept encrypted.",
    ),
    click.option("--script", metavar="FILE", callback=_script, help="A script for the first boot."),
    click.option(
        "--on-failure",
        type=click.Choice(["warn", "fail"]),
        help="Ready all the same, with a warning; or failed, and stopped.",
    ),
)
_FIELDS = ("env", "secret_env", "hosts", "dns", "script", "on_failure")


def provision_options(function: F) -> F:
    """What a VM is given, as the argument ``given``: what the API takes, where there is any."""

    @functools.wraps(function)
    def wrapper(*args: Any, **values: Any) -> Any:
        files = [*values.pop("files"), *values.pop("secret_files")]
        parts = {name: values.pop(name) for name in _FIELDS} | {"files": files}
        given = {name: value for name, value in parts.items() if value not in (None, (), [], {})}
        return function(*args, given=given, **values)

    decorated: Any = wrapper
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@click.command(cls=Command)
@click.argument("vm", metavar="VM")
@provision_options
@click.option("--unset", multiple=True, metavar="NAME", help="A variable to take away.")
@click.option("--no-host", multiple=True, metavar="NAME", help="A host name to take away.")
@click.option("--no-file", multiple=True, metavar="/PATH", help="A file to give no more.")
@click.option("--clear", is_flag=True, help="Give it nothing but what is said here.")
@click.option("--run-again", is_flag=True, help="Run the script at the next start once more.")
@click.option("--show", is_flag=True, help="Only show what it is given.")
@dry_run_option
@pass_app
def provision(
    app: App,
    vm: str,
    given: dict[str, Any],
    unset: tuple[str, ...],
    no_host: tuple[str, ...],
    no_file: tuple[str, ...],
    clear: bool,
    run_again: bool,
    show: bool,
    work: Work,
) -> None:
    """Change what a VM's guest is given when it starts; show it, where nothing is to change.

    It takes effect at the next start. The script runs once for each root drive, as root.
    Values of secrets are never shown again.
    """
    path = f"/vms/{vm}/provisioning"
    change = dict(given)
    for field, names in (("env", unset), ("secret_env", unset), ("hosts", no_host)):
        if names:
            change[field] = dict.fromkeys(names) | change.get(field, {})
    calls: list[tuple[str, str, dict[str, Any]]] = []
    if clear:
        calls.append(("PUT", path, {"body": given}) if given else ("DELETE", path, {}))
    elif change:
        calls += _patches(path, change)
    calls += [("DELETE", f"{path}/files", {"query": {"path": name}}) for name in no_file]
    calls += [("POST", f"{path}/run-again", {})] if run_again else []
    if show or not calls:
        app.answer(app.client.get(path), show_provisioning)
        return
    for method, where, call in calls:
        app.change(method, where, work, **call)
    if not (work.dry_run or app.json):
        output.note("It takes effect when the VM starts next.")


def _patches(path: str, change: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """A request holds a file or two of the largest, so each file goes by itself."""
    files = change.pop("files", [])
    bodies = [change] if change else []
    bodies += [{"files": [file]} for file in files]
    return [("PATCH", path, {"body": body}) for body in bodies]


@click.command("provision-log", cls=Command)
@click.argument("vm", metavar="VM")
@pass_app
def provision_log(app: App, vm: str) -> None:
    """Print what a VM's first-boot script wrote: its last 64 KiB, also while it runs."""
    app.answer(app.client.get(f"/vms/{vm}/provisioning/log"), _show_log)


def _show_log(log: dict[str, Any]) -> None:
    output.guest(log["text"])
    exit_ = log["exit"]
    if log["running"]:
        output.note("The script runs still.")
    elif exit_ is None:
        output.note("The script has not run.")
    else:
        output.note(f"The script {_ended(exit_)}, {when(log['ended_at'])}.")


def _ended(exit_: dict[str, Any]) -> str:
    if exit_["timed_out"]:
        return "was killed: its time was over"
    if exit_["signal"] is not None:
        return f"was killed by signal {exit_['signal']}"
    return f"ended with exit code {exit_['code']}"


def show_provisioning(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("variables", "\n".join(f"{name}={value}" for name, value in row["env"].items())),
            ("secret variables", "\n".join(row["secret_env"])),
            ("hosts", "\n".join(f"{address} {name}" for name, address in row["hosts"].items())),
            ("dns", ", ".join(row["dns"])),
            ("files", "\n".join(_shown(file) for file in row["files"])),
            ("script", _script_shown(row)),
            ("on failure", row["on_failure"]),
            ("last start", row["phase"]),
            ("problem", row["problem"]),
        ]
    )


def state_and_phase(row: dict[str, Any]) -> str:
    """A VM's state, for how long, and what provisioning does meanwhile."""
    phase = f", {row['phase']}" if row["phase"] else ""
    return f"{output.state(row['state'])} for {ago(row['state_since'])}{phase}"


def _shown(file: dict[str, Any]) -> str:
    facts = [size(file["size"]), file["mode"], file["user"], "secret" if file["secret"] else ""]
    return f"{file['path']} ({', '.join(filter(None, facts))})"


def _script_shown(row: dict[str, Any]) -> str:
    if not row["script"]:
        return ""
    lines = len(row["script"].splitlines())
    state = "has run" if row["script_done"] else "runs at the next start"
    return f"{lines} line{'' if lines == 1 else 's'}, {state}"


COMMANDS = (provision, provision_log)
