"""The canned answers are what the API gives, no more and no less."""

from __future__ import annotations

import pytest

from builds.recipe import Overlay, Recipe
from builds.schemas import BuildOut, TemplateDetail, TemplateOut, TemplateVersionDetail
from drives.schemas import (
    DriveDetail,
    DriveOut,
    ProblemOut,
    ReportOut,
    SnapshotDetail,
    SnapshotOut,
    StorageOut,
    UsageOut,
)
from images.contents_api import EntryOut, PackageOut
from images.providers_api import FieldOut, ProviderOut, ProviderTypeOut
from images.schemas import ImageDetail, ImageOut, KernelOut, RootfsOfferOut, RootfsOut
from nexus_site.api import StatusOut
from nexus_site.core.schemas import EventOut, OperationOut, Plan, Problem
from nexus_site.health_api import DoctorOut, FindingOut
from tests.nexusctl import answers as a
from tests.nexusctl import drive_answers as d
from vms.schemas import TransitionOut, VMDetail, VMOut


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (VMOut, a.VM),
        (VMOut, a.STOPPED_VM),
        (VMDetail, a.VM_DETAIL),
        *((TransitionOut, row) for row in a.HISTORY),
        (DriveOut, d.DRIVE),
        (DriveDetail, d.DRIVE_DETAIL),
        (UsageOut, d.USAGE),
        *((SnapshotOut, row) for row in (d.SNAPSHOT, d.LATER, d.OTHER)),
        (SnapshotDetail, d.SNAPSHOT_DETAIL),
        (StorageOut, d.STORAGE),
        (ReportOut, d.REPORT),
        (ProblemOut, d.PROBLEM),
        (ImageOut, a.IMAGE),
        (ImageDetail, a.IMAGE_DETAIL),
        (PackageOut, a.PACKAGE),
        (EntryOut, a.ENTRY),
        (ProviderOut, a.PROVIDER),
        (ProviderTypeOut, a.PROVIDER_TYPE),
        (FieldOut, a.PROVIDER_FIELD),
        (TemplateOut, a.TEMPLATE),
        (TemplateDetail, a.TEMPLATE_DETAIL),
        (TemplateVersionDetail, a.TEMPLATE_VERSION),
        (Recipe, a.RECIPE),
        *((Overlay, row) for row in a.RECIPE["overlays"]),
        (BuildOut, a.BUILD),
        (RootfsOfferOut, a.OFFER),
        (RootfsOut, a.ROOTFS),
        (KernelOut, a.KERNEL),
        (EventOut, a.EVENT),
        (StatusOut, a.STATUS),
        (DoctorOut, a.DOCTOR),
        *((FindingOut, row) for row in a.DOCTOR["findings"]),
        (OperationOut, a.operation("running", a.step("x", "X", "running"))),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_answers_have_the_fields_of_their_schemas(schema, answer):
    assert set(answer) == set(schema.model_fields)
    for name, field in schema.model_fields.items():
        nested = getattr(field.annotation, "model_fields", None)
        if nested is not None:
            assert set(answer[name]) == set(nested)


def test_problems_and_steps_too():
    _, problem = a.problem(404, "It is not there.", hint="", evidence="", errors=[])
    assert set(problem) == set(Problem.model_fields)
    assert {"dry_run", "title", "steps"} == set(Plan.model_fields)
    step_schema = OperationOut.model_fields["steps"].annotation.__args__[0]
    assert set(a.step("x", "X")) == set(step_schema.model_fields)
