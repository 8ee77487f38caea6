"""The forms for new VMs, drives and images: three sources, one pattern, a preview of each."""

from __future__ import annotations

import html
import json
import re

import pytest
from django.test import Client

from images.providers.base import RootfsOffer
from nexus_site.core.models import Operation
from tests.factories import make_image, make_rootfs, make_template, make_vm
from tests.web.conftest import htmx

pytestmark = pytest.mark.usefixtures("nudges")

POLICIES = {"restart_policy": "no", "unreachable_action": "keep"}
SIZE = {"vcpu_count": "2", "mem_size_mib": "256", "hypervisor": "auto"} | POLICIES
FORM = SIZE | {"rootfs": "alpine:3.23", "name": "hello", "vcpu_count": "1", "mem_size_mib": "128"}


@pytest.fixture(autouse=True)
def _agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's digest without an agent."""
    monkeypatch.setattr("builds.services.builds.agent_digest", lambda arch: "3" * 64)


def _text(client: Client, address: str) -> str:
    return client.get(address).content.decode()


def _preview(client: Client, address: str, form: dict[str, str]) -> str:
    response = client.post(address, form, headers=htmx("section#vms-plan"))
    return html.unescape(response.content.decode())


@pytest.mark.parametrize("target", ["vm", "drive", "image"])
def test_what_it_is_made_from_is_chosen_by_links(client: Client, target: str) -> None:
    page = _text(client, f"/{target}s/new/?from=template")
    assert f'href="/{target}s/new/?from=rootfs"' in page
    assert f'href="/{target}s/new/?from=template" aria-current="page"' in page
    assert (f'href="/{target}s/new/?from=image"' in page) is (target != "image")
    assert f'href="/{target}s/new/?from=nothing"' not in _text(client, f"/{target}s/new/?from=x")


def test_a_source_that_has_nothing_says_how_to_get_something(client: Client) -> None:
    assert "No template yet" in _text(client, "/vms/new/?from=template")
    assert "No image yet" in _text(client, "/vms/new/?from=image")


def test_without_a_provider_the_form_leads_to_the_distributions(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("images.services.list_rootfs_offers", list)
    page = _text(client, "/vms/new/")
    assert "No distribution is available" in page
    assert "Create and start" not in page


def test_links_choose_a_source_beforehand(client: Client) -> None:
    make_image(name="first")
    image, template = make_image(name="second"), make_template()
    assert f'<option value="{image.ref}" selected>' in _text(
        client, f"/drives/new/?image={image.ref}"
    )
    assert f'<option value="{template.ref}" selected>' in _text(
        client, f"/vms/new/?template={template.ref}"
    )


def test_a_cold_start_is_asked_for_by_a_box(client: Client) -> None:
    address = "/vms/new/preview/?from=rootfs"
    assert "cold" not in _preview(client, address, FORM)
    asked = _preview(client, address, FORM | {"cold": "on"})
    assert "--cold" in asked
    assert '"cold": true' in asked
    client.post("/vms/new/", FORM | {"cold": "on"}, headers=htmx("form"))
    assert Operation.objects.get(kind="vm.from-rootfs").params["cold"] is True


def test_creating_leads_to_the_operation(client: Client) -> None:
    response = client.post("/vms/new/", FORM, headers=htmx("form"))
    operation = Operation.objects.get(kind="vm.from-rootfs")
    assert response["HX-Redirect"] == f"/operations/{operation.ref}/"
    assert operation.params["mem_size_mib"] == 128


@pytest.mark.parametrize(
    ("target", "source", "wishes"),
    [
        *(("vm", source, SIZE) for source in ("rootfs", "template", "image")),
        *(("drive", source, {"size_mib": "90"}) for source in ("rootfs", "template", "image")),
        ("drive", "image", {"size_mib": ""}),
        *(("image", source, {}) for source in ("rootfs", "template")),
    ],
)
def test_every_pair_of_source_and_target_is_one_operation_with_its_command(
    client: Client, target: str, source: str, wishes: dict[str, str]
) -> None:
    rows = {
        "rootfs": "alpine:3.23",
        "template": make_template(name="web").ref,
        "image": make_image(name="web", size_bytes=64 << 20).ref,
    }
    form = {source: str(rows[source]), "name": "mine"} | wishes
    plan = _preview(client, f"/{target}s/new/preview/?from={source}", form)
    words = {"rootfs": "alpine 3.23", "template": "web", "image": "web"}[source]
    assert f"nexusctl {target} from-{source} {words} --name mine" in plan
    assert f"POST /v1/{target}s/from-{source}" in plan
    assert not Operation.objects.exists()
    client.post(f"/{target}s/new/?from={source}", form, headers=htmx("form#vms-new_form"))
    operation = Operation.objects.get()
    assert operation.kind == f"{target}.from-{source}"
    assert operation.params["name"] == "mine"


def test_the_body_that_is_shown_is_what_the_api_takes(client: Client) -> None:
    make_template(name="web")
    template = make_template(name="db")
    form = {"template": template.ref, "name": ""} | SIZE
    plan = _preview(client, "/vms/new/preview/?from=template", form)
    found = re.search(r"<code>(\{.*?\})</code>", plan)
    assert found
    assert json.loads(found[1]) == {"template": "db", "vcpu_count": 2, "mem_size_mib": 256}


def test_a_hypervisor_and_limits_are_in_the_command_and_the_body(client: Client) -> None:
    template = make_template(name="web")
    limits = {"hypervisor": "qemu", "disk_mib_s": "50", "disk_iops": "500"}
    form = {"template": template.ref, "name": "hello"} | SIZE | limits
    plan = _preview(client, "/vms/new/preview/?from=template", form)
    assert "--hypervisor qemu --disk-limit 50 --disk-iops 500" in plan, (
        "nexusctl takes MiB without a unit"
    )
    assert '"hypervisor": "qemu", "disk_mib_s": 50, "disk_iops": 500' in plan
    assert "QEMU: the VM wishes for it" in plan or "has not looked" in plan
    refused = _preview(client, "/vms/new/preview/?from=template", form | {"network_mib_s": "10"})
    assert "QEMU's network knows no limit" in refused
    client.post("/vms/new/?from=template", form, headers=htmx("form#vms-new_form"))
    params = Operation.objects.get().params
    assert [params[name] for name in limits] == ["qemu", 50, 500]


def test_the_same_of_two_providers_is_told_apart(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = [
        RootfsOffer("alpine", "3.23", "x86_64", provider, "f", 1, "tar.gz")
        for provider in ("embedded", "mirror")
    ]
    monkeypatch.setattr("images.services.list_rootfs_offers", lambda: offers)
    page = _text(client, "/vms/new/")
    assert "Alpine 3.23 of mirror" in page
    plan = _preview(client, "/vms/new/preview/", FORM | {"rootfs": "alpine:3.23:mirror"})
    assert "from-rootfs alpine 3.23 --name hello --provider mirror" in plan


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"name": "taken"}, "name", "There is a VM “taken” already."),
        ({"name": "Not A Label"}, "name", "cannot be a name"),
        ({"name": "aaaaaaaaaaaac"}, "name", "it has the form of an ID"),
        ({"vcpu_count": "999"}, "vcpu_count", "A VM here has 1 to"),
        ({"mem_size_mib": "99999999"}, "mem_size_mib", "MiB of memory"),
        ({"mem_size_mib": "much"}, "mem_size_mib", "whole number"),
        ({"rootfs": "plan9:4"}, "rootfs", "not one of the available choices"),
    ],
)
def test_what_a_rule_forbids_is_said_at_its_field(
    client: Client, changes: dict[str, str], field: str, words: str
) -> None:
    make_vm(name="taken")
    response = client.post("/vms/new/", FORM | changes, headers=htmx("form#vms-new_form"))
    assert response.status_code == 422
    page = response.content.decode()
    assert page.lstrip().startswith("<form"), "the form alone"
    error = page[page.index(f'id="id_{field}-error"') :]
    assert words in error[: error.index("</div>")]
    assert not Operation.objects.exists()


def test_a_drive_that_is_too_small_is_refused_at_the_field(client: Client) -> None:
    image = make_image(size_bytes=256 << 20)
    form = {"image": image.ref, "size_mib": "128"}
    response = client.post("/drives/new/", form, headers=htmx("form#vms-new_form"))
    assert response.status_code == 422
    assert 'id="id_size_mib-error"' in response.content.decode()


def test_what_is_gone_meanwhile_is_said_at_its_field(client: Client) -> None:
    image = make_image()
    form = {"image": image.ref}
    make_image()
    image.delete()
    response = client.post("/drives/new/", form, headers=htmx("form#vms-new_form"))
    assert response.status_code == 422
    assert 'id="id_image-error"' in response.content.decode()


def test_the_preview_shows_steps_and_commands_and_changes_nothing(client: Client) -> None:
    plan = _preview(client, "/vms/new/preview/", FORM)
    assert "Wait for the agent" in plan
    assert "nexusctl vm from-rootfs alpine 3.23 --name hello --vcpus 1 --memory 128" in plan
    assert not Operation.objects.exists()


def test_the_preview_says_what_would_be_refused(client: Client) -> None:
    make_vm(name="hello")
    assert "There is a VM “hello” already." in _preview(client, "/vms/new/preview/", FORM)


def test_onlookers_make_nothing(onlooker: Client) -> None:
    make_rootfs()
    for target in ("vm", "drive", "image"):
        assert onlooker.get(f"/{target}s/new/").status_code == 403
        assert onlooker.post(f"/{target}s/new/preview/", FORM).status_code == 403
    assert onlooker.get("/images/import/").status_code == 403
