"""Which operations of this app workers can run."""

from __future__ import annotations

from builds import pipeline
from nexus_site.core.operations import register

register("build.run", pipeline.plan, pipeline.failed)
