"""What the JSON API of templates and builds takes and gives."""

from builds.schemas.builds import BuildLog, BuildOut, BuildState, TriggerBuild
from builds.schemas.templates import (
    CopyTemplate,
    CreateTemplate,
    RevertTemplate,
    TemplateDetail,
    TemplateOut,
    TemplateVersionDetail,
    TemplateVersionOut,
    UpdateTemplate,
    WhichRootfs,
)

__all__ = [
    "BuildLog",
    "BuildOut",
    "BuildState",
    "CopyTemplate",
    "CreateTemplate",
    "RevertTemplate",
    "TemplateDetail",
    "TemplateOut",
    "TemplateVersionDetail",
    "TemplateVersionOut",
    "TriggerBuild",
    "UpdateTemplate",
    "WhichRootfs",
]
