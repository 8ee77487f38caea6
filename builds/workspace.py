"""Where a build works, and what it works from."""

from __future__ import annotations

import shutil
from pathlib import Path

from django.conf import settings

from builds.inputs import Inputs
from builds.machines import provider
from builds.models import Build, Making
from builds.recipe import Recipe, parse
from images.trees import Tree
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import NexusID
from nexus_site.core.steps import Run


def build_of(run: Run) -> Build:
    """The build that an operation carries out; ``Conflict`` when it has been deleted."""
    rows = Build.objects.select_related(
        "template_version__rootfs", "template_version__template", "verifies"
    )
    build = rows.filter(pk=NexusID.parse(run.params["build"])).first()
    if build is None:
        raise Conflict("The build has been deleted meanwhile.", code="build-gone")
    return build


def inputs_of(build: Build) -> Inputs:
    return Inputs.from_document(build.inputs)


def recipe_of(build: Build) -> Recipe:
    return parse(inputs_of(build).recipe)


def workspace(build: Making) -> Path:
    """The build's own directory, gone when it ends."""
    return Path(settings.NEXUS.data_dir) / "builds" / build.ref


def tree_dir(build: Build) -> Path:
    return workspace(build) / "tree"


def load_tree(build: Build) -> Tree:
    """The tree as the step before has saved it."""
    return Tree.load(tree_dir(build))


def machine_dir(build: Build) -> Path:
    return workspace(build) / "machine"


def packed(build: Build) -> Path:
    return workspace(build) / "image.ext4"


def end_machine(build: Build) -> None:
    """End the VM that a killed worker left, and remove what it had begun; safe to repeat."""
    if machine_dir(build).exists():
        provider().discard(machine_dir(build))
    for left in (machine_dir(build), workspace(build) / "customized"):
        shutil.rmtree(left, ignore_errors=True)


def remove_workspace(build: Build) -> None:
    end_machine(build)
    shutil.rmtree(workspace(build), ignore_errors=True)
