"""What the JSON API of templates and builds takes and gives."""

from builds.schemas.builds import BuildLog, BuildOut, BuildState, TriggerBuild
from builds.schemas.templates import CreateTemplate, TemplateOut, TemplateVersionOut

__all__ = [
    "BuildLog",
    "BuildOut",
    "BuildState",
    "CreateTemplate",
    "TemplateOut",
    "TemplateVersionOut",
    "TriggerBuild",
]
