"""Which operations of this app workers can run."""

from __future__ import annotations

from builds import pipeline
from builds.kernels import pipeline as kernel_pipeline
from builds.kernels import version_check
from nexus_site.core.operations import register

register("build.run", pipeline.plan, pipeline.failed)
register("kernel.build", kernel_pipeline.plan, kernel_pipeline.failed)
register("kernel.version-check", version_check.plan)
