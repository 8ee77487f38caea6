"""Hatchling's hook: building the Python package compiles the guest agent into it."""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AgentBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs ``guest_agent.build`` and adds its result, which git does not know, to the package."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        try:
            from guest_agent.build import build
        finally:
            sys.path.remove(self.root)
        build()
        build_data["artifacts"].append("guest_agent/dist/nexus-agent-*")
