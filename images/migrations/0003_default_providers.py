"""The sources of root file systems that a new server has; operators change them as they like."""

from __future__ import annotations

from typing import Any

from django.db import migrations

DEFAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("embedded", {}),
    ("alpine", {"base_url": "https://dl-cdn.alpinelinux.org/alpine", "keyring": ""}),
    ("debian", {"mirror": "", "keyring": ""}),
)


def seed(apps: Any, schema_editor: Any) -> None:
    provider = apps.get_model("images", "Provider")
    for position, (name, config) in enumerate(DEFAULTS, 1):
        provider.objects.create(name=name, type=name, config=config, position=position * 10)


class Migration(migrations.Migration):
    dependencies = [("images", "0002_providers_and_provenance")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop)]
