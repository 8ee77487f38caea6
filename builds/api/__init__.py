"""Templates and builds over HTTP."""

from __future__ import annotations

from ninja import Router

from builds.api import builds, kernels, templates

router = Router(tags=["templates and builds"])
router.add_router("", templates.router)
router.add_router("", builds.router)
router.add_router("", kernels.router)
