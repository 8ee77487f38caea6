"""The page about the command line says what the command line does."""

from __future__ import annotations

from pathlib import Path

import click

from nexusctl.main import cli
from nexusctl.reference import reference

PAGE = Path(__file__).parent.parent.parent / "docs/reference/nexusctl.md"


def test_the_page_is_current():
    assert PAGE.read_text() == reference(), (
        "Write it anew: python -m nexusctl.reference docs/reference/nexusctl.md"
    )


def test_every_command_says_what_it_does():
    groups = [c for c in cli.commands.values() if isinstance(c, click.Group)]
    commands = [*cli.commands.values(), *(c for g in groups for c in g.commands.values())]
    assert len(commands) > 40
    assert [c.name for c in commands if not c.help] == []
