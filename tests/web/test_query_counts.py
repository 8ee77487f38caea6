"""A list costs the same number of queries however long it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from images.models import Provider
from nexus_site.core import auth
from tests.factories import (
    make_build,
    make_drive,
    make_image,
    make_kernel,
    make_kernel_build,
    make_pool,
    make_release,
    make_rootfs,
    make_snapshot,
    make_template,
    make_vm_snapshot,
    make_warm_template,
    unique_name,
)
from tests.web.conftest import make_operation, make_ready_vm, make_vm_on

MOST = 14  # session, person, last event, open operations and what the list itself needs


def make_token() -> object:
    return auth.create_token("ci", "read")


def make_kept_rootfs() -> object:
    return make_rootfs(version=unique_name())


def make_another_release() -> object:
    return make_release(f"1.12.1-{unique_name()[-4:]}")


def make_provider() -> object:
    return Provider.objects.create(name=unique_name(), type="alpine")


CASES: list[tuple[str, Callable[[], object]]] = [
    ("/", make_ready_vm),
    ("/", make_operation),
    ("/vms/", make_ready_vm),
    ("/vms/", lambda: make_operation(kind="vm.from-rootfs", subject_kind="vm")),
    ("/drives/", make_ready_vm),
    ("/drives/", make_snapshot),
    ("/storage/", make_ready_vm),
    ("/storage/", make_snapshot),
    ("/storage/check/", make_snapshot),
    ("/images/", make_image),
    ("/warm-templates/", make_warm_template),
    ("/pools/", lambda: make_pool(ready=2)),
    ("/images/?q=a", make_image),
    ("/distributions/", make_image),
    ("/distributions/", make_kept_rootfs),
    ("/providers/", make_provider),
    ("/firecracker/", make_another_release),
    ("/vms/new/?from=template", make_template),
    ("/drives/new/?from=image", make_image),
    ("/drives/new/?from=drive", make_drive),
    ("/drives/new/?from=snapshot", make_snapshot),
    ("/kernels/", make_kernel),
    ("/templates/", make_template),
    ("/builds/", make_build),
    ("/builds/kernels/", make_kernel_build),
    ("/operations/", make_operation),
    ("/events/", make_ready_vm),
    ("/account/", make_token),
    ("/admin/vms/vm/", make_ready_vm),
    ("/admin/vms/boot/", make_ready_vm),
    ("/admin/vms/transition/", make_ready_vm),
    ("/admin/vms/attachment/", make_ready_vm),
    ("/admin/drives/drive/", make_drive),
    ("/admin/images/image/", make_image),
    ("/admin/builds/build/", make_build),
    ("/admin/builds/kernelbuild/", make_kernel_build),
    ("/admin/builds/template/", make_template),
    ("/admin/builds/template/?versions__rootfs__distro=alpine", make_template),
    ("/admin/builds/templateversion/", make_template),
    ("/admin/core/operation/", make_operation),
    ("/admin/core/event/", make_ready_vm),
    ("/admin/core/token/", make_token),
]


@pytest.mark.parametrize(("address", "make"), CASES)
def test_a_list_of_30_costs_what_one_of_3_does(
    client: Client,
    address: str,
    make: Callable[[], object],
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    for _ in range(3):
        make()
    with CaptureQueriesContext(connection) as short:
        assert client.get(address).status_code == 200
    for _ in range(27):
        make()
    with django_assert_max_num_queries(min(len(short), MOST)):
        assert client.get(address).status_code == 200


def test_an_image_used_by_many_costs_no_more(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    image = make_vm_on("alpine-3-23").image
    assert image is not None
    for _ in range(20):
        make_drive(image=image)
    with django_assert_max_num_queries(12):
        assert client.get(f"/images/{image.ref}/").status_code == 200


def test_a_vm_with_a_long_past_costs_no_more(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    vm = make_ready_vm()
    for _ in range(30):
        make_operation(subject_kind="vm", subject_id=vm.pk)
    with django_assert_max_num_queries(18):
        assert client.get(f"/vms/{vm.ref}/").status_code == 200


def test_many_snapshots_cost_no_more(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    vm = make_ready_vm()
    drive = vm.attachments.get().drive
    parts = [make_vm_snapshot(vm).drives.get() for _ in range(10)]
    for part in parts:
        make_drive(origin="snapshot", source_snapshot=part)
    with django_assert_max_num_queries(18):
        assert client.get(f"/vms/{vm.ref}/").status_code == 200
    for address in (f"/drives/{drive.ref}/", f"/snapshots/{parts[0].ref}/"):
        with django_assert_max_num_queries(MOST):
            assert client.get(address).status_code == 200
    with django_assert_max_num_queries(MOST):
        assert client.get(f"/vm-snapshots/{vm.head.ref}/").status_code == 200
