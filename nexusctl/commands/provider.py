"""nexusctl provider …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import (
    App,
    Group,
    Work,
    confirm,
    dry_run_option,
    pass_app,
    show_named,
    work_options,
    yes_option,
)
from nexusctl.formatting import ago, when

provider_argument = click.argument("provider", metavar="PROVIDER")
set_option = click.option(
    "--set", "pairs", multiple=True, metavar="FIELD=VALUE", help="A value of its configuration."
)
position_option = click.option("--position", type=int, help="Lower is asked first.")


@click.group(cls=Group)
def provider() -> None:
    """Where root file systems come from."""


@provider.command("list")
@pass_app
def list_(app: App) -> None:
    """List providers in the order in which they are asked."""
    app.items("/providers", show_providers)


@provider.command()
@pass_app
def types(app: App) -> None:
    """List the types of providers and what each needs to know."""
    app.answer(app.client.get("/provider-types")["items"], show_types)


@provider.command()
@provider_argument
@pass_app
def inspect(app: App, provider: str) -> None:
    """Show all about a provider."""
    app.answer(app.client.get(f"/providers/{provider}"), show_provider)


@provider.command()
@click.argument("name")
@click.option("--type", "kind", required=True, help="See: nexusctl provider types")
@set_option
@position_option
@dry_run_option
@pass_app
def create(
    app: App, name: str, kind: str, pairs: tuple[str, ...], position: int | None, work: Work
) -> None:
    """Add a provider."""
    body: dict[str, Any] = {"name": name, "type": kind, "config": _config(pairs)}
    if position is not None:
        body["position"] = position
    row = app.change("POST", "/providers", work, body=body)
    if row:
        show_named(row)


@provider.command()
@provider_argument
@click.option("--name", help="Another name.")
@set_option
@position_option
@click.option("--enable/--disable", "enabled", default=None, help="Whether it is asked at all.")
@dry_run_option
@pass_app
def update(
    app: App,
    provider: str,
    name: str | None,
    pairs: tuple[str, ...],
    position: int | None,
    enabled: bool | None,
    work: Work,
) -> None:
    """Change a provider; what is left out stays."""
    body: dict[str, Any] = {"name": name, "position": position, "enabled": enabled}
    if pairs:
        kept = app.client.get(f"/providers/{provider}")["config"]
        body["config"] = kept | _config(pairs)
    given = {key: value for key, value in body.items() if value is not None}
    row = app.change("PATCH", f"/providers/{provider}", work, body=given)
    if row:
        show_named(row)


@provider.command()
@provider_argument
@work_options
@pass_app
def refresh(app: App, provider: str, work: Work) -> None:
    """Ask a provider's publisher what there is."""
    app.change("POST", f"/providers/{provider}/refresh", work)


@provider.command()
@provider_argument
@yes_option
@dry_run_option
@pass_app
def delete(app: App, provider: str, yes: bool, work: Work) -> None:
    """Remove a provider; what came from it stays."""
    confirm(f"Delete the provider {provider}?", yes=yes, work=work)
    app.change("DELETE", f"/providers/{provider}", work)


def show_providers(rows: list[Any]) -> None:
    output.table(
        ["NAME", "TYPE", "ASKED", "OFFERS", "LAST ASKED", "PROBLEM"],
        [
            [
                row["name"],
                row["type"],
                "yes" if row["enabled"] else "no",
                str(row["offer_count"]),
                ago(row["refreshed_at"]),
                row["problem"],
            ]
            for row in rows
        ],
        empty="No providers. See: nexusctl provider types",
    )


def show_types(rows: list[Any]) -> None:
    output.table(
        ["TYPE", "FIELD", "NEEDED", "WHAT IT IS"],
        [
            [kind["name"], field["name"], "yes" if field["required"] else "no", field["help"]]
            for kind in rows
            for field in kind["fields"] or [{"name": "", "required": False, "help": kind["help"]}]
        ],
        empty="",
    )


def show_provider(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("type", row["type"]),
            ("asked", "yes" if row["enabled"] else "no"),
            ("position", str(row["position"])),
            *((name, str(value)) for name, value in sorted(row["config"].items())),
            ("offers", str(row["offer_count"])),
            ("last asked", when(row["refreshed_at"])),
            ("problem", row["problem"]),
        ]
    )


def _config(pairs: tuple[str, ...]) -> dict[str, str]:
    config = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise click.UsageError(f"--set {pair}: write FIELD=VALUE.")
        config[name] = value
    return config
