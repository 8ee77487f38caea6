"""The documentation keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nexus_site.settings import NexusSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")


def test_every_setting_is_documented_and_nothing_else() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))
    fields = NexusSettings.model_fields
    real = {
        str(field.validation_alias or f"NEXUS_{name.upper()}") for name, field in fields.items()
    }
    assert documented == real


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = [
        target
        for target in LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


@pytest.mark.parametrize(
    "page", sorted((ROOT / "docs/decisions").glob("0*.md")), ids=lambda path: path.name
)
def test_a_decision_is_ten_lines_not_an_essay(page: Path) -> None:
    lines = [line for line in page.read_text().splitlines() if line.strip()]
    assert 3 <= len(lines) <= 16
