"""The list of VMs, the page of one, and its buttons."""

from __future__ import annotations

import pytest
from django.test import Client

from images.providers.base import RootfsOffer
from nexus_site.core.models import Operation
from tests.factories import make_drive, make_vm
from tests.web.conftest import htmx, make_operation, make_ready_vm
from vms.models import VM, Boot
from vms.paths import make_vm_dir
from vms.states import State
from vms.transitions import move
from vms.views import pages

POLICIES = {"restart_policy": "no", "unreachable_action": "keep"}
ALPINE = RootfsOffer("alpine", "3.23", "x86_64", "embedded", "alpine.qcow2", 1 << 20, "qcow2")


@pytest.fixture(autouse=True)
def _offers(monkeypatch: pytest.MonkeyPatch, nudges: list[str]) -> None:
    monkeypatch.setattr("images.providers.embedded.EmbeddedProvider.offers", lambda self: [ALPINE])


def _html(client: Client, address: str) -> str:
    return client.get(address).content.decode()


# The list


def test_with_no_vm_the_list_and_the_overview_offer_to_create_one(client: Client) -> None:
    assert "Create your first VM" in _html(client, "/vms/")
    assert "Create your first VM" in _html(client, "/")


def test_the_list_finds_by_part_of_a_name_and_by_id(client: Client) -> None:
    wanted, other = make_vm(name="builder-7"), make_vm(name="hello")
    for query in ("uild", wanted.ref, wanted.ref.upper()):
        html = _html(client, f"/vms/?q={query}")
        assert wanted.ref in html, query
        assert other.ref not in html, query


def test_the_list_filters_by_state_and_counts_each(client: Client) -> None:
    make_ready_vm(name="up"), make_ready_vm(name="up-too"), make_vm(name="down")
    html = _html(client, "/vms/?state=ready")
    assert ">up</a>" in html
    assert ">down</a>" not in html
    assert "All <span>3</span>" in html
    assert "ready <span>2</span>" in html
    assert "created <span>1</span>" in html
    assert "crashed" not in html, "no chip for what no VM is"


def test_a_sorted_list_keeps_its_filter_and_says_how_it_is_sorted(client: Client) -> None:
    for name in ("b-vm", "a-vm", "c-vm", "other"):
        make_vm(name=name)
    html = _html(client, "/vms/?q=-vm&sort=-name")
    assert html.index("c-vm") < html.index("b-vm") < html.index("a-vm")
    assert 'aria-sort="descending"' in html
    assert 'href="/vms/?q=-vm&amp;sort=name"' in html, "a second click turns it round"


def test_a_long_list_has_pages_and_nonsense_leads_to_one_that_exists(client: Client) -> None:
    for number in range(27):
        make_vm(name=f"vm-{number:02d}")
    assert "1–25 of 27 VMs" in _html(client, "/vms/")
    assert "26–27 of 27 VMs" in _html(client, "/vms/?page=2")
    assert "26–27 of 27 VMs" in _html(client, "/vms/?page=999")
    assert "1–25 of 27 VMs" in _html(client, "/vms/?page=x&sort=nonsense&state=nonsense")


def test_a_vm_in_the_making_is_on_top_until_it_has_a_row(client: Client) -> None:
    make_vm(name="hello")
    making = make_operation(kind="vm.from-rootfs", subject_kind="vm", subject_name="new-one")
    html = _html(client, "/vms/")
    assert html.index("new-one") < html.index(">hello</a>")
    assert f"operation:{making.ref}" in html, "it is live"
    assert "new-one" not in _html(client, "/vms/?state=ready")
    vm = make_vm(name="new-one")
    Operation.objects.filter(pk=making.pk).update(subject_id=vm.pk)
    assert "setting up" not in _html(client, "/vms/")


# The page


def test_the_page_shows_what_the_agent_said(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    memory = {"memory_total": 480 << 20, "memory_available": 402 << 20}
    VM.objects.filter(pk=vm.pk).update(
        agent={"agent_version": "0.1.0", "os": "Alpine Linux v3.23", "hostname": "hello"},
        heartbeat=memory | {"disks": [], "load": [0.5, 0.25, 0.125]},
    )
    html = _html(client, "/vms/hello/")
    for text in ("Alpine Linux v3.23", "78 MiB of 480 MiB", "0.50", "said hello after 6.0 s"):
        assert text in html
    assert "Emulated, without KVM" in html
    assert 'data-copy="nexusctl vm forward hello 8080"' in html


def test_the_console_is_shown_without_control_sequences(client: Client) -> None:
    vm = make_vm(name="hello")
    (make_vm_dir(vm) / "console.log").write_bytes(b"\x1b[32mok\x1b[0m <script>\r\nlogin: ")
    html = _html(client, "/vms/hello/")
    assert "ok &lt;script&gt;\nlogin: </pre>" in html
    assert 'data-offset="29"' in html
    download = client.get("/vms/hello/console.log")
    assert download.content.startswith(b"\x1b[32mok"), "the file is as the guest wrote it"
    assert 'filename="hello-console.log"' in download["Content-Disposition"]


def test_a_crash_is_told_at_the_top_with_its_evidence(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    detail = {"exit": "killed by signal 9 (SIGKILL)", "console": ["last words"]}
    move(vm, State.CRASHED, "the VMM was killed", detail=detail)
    html = _html(client, "/vms/hello/")
    assert "It crashed" in html
    assert html.count("killed by signal 9 (SIGKILL)") == 2, "on top and in the history"
    assert "last words" in html


def test_a_verb_that_cannot_be_done_is_there_and_says_why(client: Client) -> None:
    make_ready_vm(name="hello")
    html = _html(client, "/vms/hello/")
    assert "It is ready; only a VM at rest can be started." in html
    make_vm(name="bare", root=False)
    assert "It has no root drive; attach one first." in _html(client, "/vms/bare/")


# The buttons


def test_start_answers_with_a_note_that_follows_the_operation(client: Client) -> None:
    vm = make_vm(name="hello", mem_size_mib=128)
    response = client.post("/vms/hello/start/", headers=htmx("form"))
    operation = Operation.objects.get(kind="vm.start")
    assert response["HX-Retarget"] == "#toasts"
    assert f'data-live="operation:{operation.ref}"' in response.content.decode()
    assert operation.actor == "user:operator"
    vm.refresh_from_db()
    assert vm.state == State.STARTING


def test_without_htmx_start_goes_back_to_the_page(client: Client) -> None:
    make_vm(name="hello", mem_size_mib=128)
    response = client.post("/vms/hello/start/", headers={"Referer": "http://testserver/vms/?q=h"})
    assert response["Location"] == "/vms/?q=h"
    away = client.post("/vms/hello/stop/", headers={"Referer": "https://evil.example/"})
    assert away["Location"] == "/"


def test_an_onlooker_may_look_and_not_touch(onlooker: Client) -> None:
    vm = make_vm(name="hello", mem_size_mib=128)
    assert onlooker.get("/vms/hello/").status_code == 200
    assert onlooker.get("/vms/new/").status_code == 403
    for verb in ("start", "stop", "restart", "rename", "change", "delete", "attach"):
        assert onlooker.post(f"/vms/hello/{verb}/", {"confirm": "hello"}).status_code == 403, verb
    vm.refresh_from_db()
    assert vm.state == State.CREATED
    assert not Operation.objects.exists()


def test_buttons_take_no_get(client: Client) -> None:
    make_vm(name="hello")
    for verb in ("start", "stop", "restart", "rename", "delete", "attach"):
        assert client.get(f"/vms/hello/{verb}/").status_code == 405, verb


def test_force_stop_kills(client: Client) -> None:
    make_ready_vm(name="hello")
    client.post("/vms/hello/stop/", {"force": "1"}, headers=htmx("form"))
    assert Operation.objects.get(kind="vm.stop").params["force"] is True


def test_deleting_takes_the_typed_name(client: Client) -> None:
    make_vm(name="hello")
    refused = client.post("/vms/hello/delete/", {"confirm": "helo"}, headers=htmx("form"))
    assert refused.status_code == 422
    assert not Operation.objects.exists()
    form = {"confirm": "hello", "keep_drives": "on"}
    response = client.post("/vms/hello/delete/", form, headers=htmx("form"))
    assert response["HX-Redirect"] == "/vms/"
    assert Operation.objects.get(kind="vm.delete").params["keep_drives"] is True


def test_rename_and_change_change_the_row(client: Client) -> None:
    vm = make_vm(name="hello")
    client.post("/vms/hello/rename/", {"name": "renamed"}, headers=htmx("form"))
    sizes = {"vcpu_count": "1", "mem_size_mib": "96"}
    sizes |= POLICIES | {"hypervisor": "qemu"}
    client.post("/vms/renamed/change/", sizes, headers=htmx("dialog"))
    vm.refresh_from_db()
    assert (vm.name, vm.mem_size_mib, vm.hypervisor) == ("renamed", 96, "qemu")


def test_of_a_vm_that_runs_only_the_next_hypervisor_is_changed(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    dialog = client.get("/vms/hello/change/", headers=htmx("dialog")).content.decode()
    assert dialog.count("disabled") == 6, "all but the hypervisor and the policies"
    assert "takes effect at its next start" in dialog
    form = POLICIES | {"hypervisor": "qemu", "mem_size_mib": "64"}
    answer = client.post("/vms/hello/change/", form, headers=htmx("dialog")).content.decode()
    assert "Its hypervisor is another one at the next start." in answer
    before = vm.mem_size_mib
    vm.refresh_from_db()
    assert (vm.hypervisor, vm.mem_size_mib) == ("qemu", before)


def test_limits_are_set_and_taken_away_in_the_dialog(client: Client) -> None:
    vm = make_vm(name="hello", mem_size_mib=128)
    form = {"vcpu_count": "1", "mem_size_mib": "128", "hypervisor": "auto"} | POLICIES
    limits = {"disk_mib_s": "50", "disk_iops": "500", "network_mib_s": "10"}
    client.post("/vms/hello/change/", form | limits, headers=htmx("dialog"))
    assert "each disk 50 MiB/s, 500 IOPS; network 10 MiB/s" in _html(client, "/vms/hello/")
    client.post("/vms/hello/change/", form, headers=htmx("dialog"))
    vm.refresh_from_db()
    assert (vm.disk_mib_s, vm.disk_iops, vm.network_mib_s) == (None, None, None)
    assert "<dt>Limits</dt>" not in _html(client, "/vms/hello/")


def test_the_page_says_what_it_runs_on_why_and_what_it_would_run_on_next(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pages, "expectation", lambda wish: ("firecracker", "the best that works here")
    )
    vm = make_ready_vm(name="hello")
    Boot.objects.create(
        vm=vm, number=5, hypervisor="qemu", hypervisor_version="7.2", accelerator="tcg",
        choice="Firecracker has limits here: no network",
        metrics={"disk": {"rd_bytes": 512}, "utc": 7},
    )  # fmt: skip
    page = _html(client, "/vms/hello/")
    assert "<dt>Hypervisor</dt><dd>QEMU 7.2, emulation<br>" in page
    assert "Firecracker has limits here: no network" in page
    assert "Firecracker at the next start: the best that works here" in page
    assert "<dt>disk.rd_bytes</dt><dd>512</dd>" in page
    Boot.objects.create(
        vm=vm, number=6, hypervisor="firecracker", hypervisor_version="1.12.1",
        accelerator="kvm", jailed=True, choice="the best that works here",
    )  # fmt: skip
    page = _html(client, "/vms/hello/")
    assert "<dt>Hypervisor</dt><dd>Firecracker 1.12.1, KVM, jailed<br>" in page
    assert "at the next start" not in page
    assert "Counters" not in page, "the newest has counted nothing yet"


def test_a_vm_that_never_ran_says_what_it_would_run_on(client: Client) -> None:
    make_vm(name="hello")
    page = _html(client, "/vms/hello/")
    assert "<dt>Wish</dt><dd>automatic</dd>" in page
    assert "not known yet" in page


def test_a_drive_is_attached_as_root_and_detached(client: Client) -> None:
    vm, drive = make_vm(name="hello", root=False), make_drive(name="spare")
    assert "spare" in _html(client, "/vms/hello/")
    client.post("/vms/hello/attach/", {"drive": drive.ref}, headers=htmx("form"))
    assert vm.attachments.get().is_root
    client.post(f"/drives/{drive.ref}/detach/", headers=htmx("form"))
    assert not vm.attachments.exists()
