"""What is known about kernels: options, scores, what can be had, what is newer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from builds.kernels import news
from images import services
from images.providers.kernels.distro import DistroProvider
from nexus_site.core.errors import NotFound, Retryable
from tests.factories import make_kernel
from tests.images.downloads.server import Mirror
from tests.images.kernels import Releases, vmlinux
from tests.images.test_kernel_shelf import booter, downloaded, ended, local, released, set_up
from tests.web.conftest import make_ready_vm

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges", "booter")]

__all__ = ["booter", "released"]  # fixtures


def test_options_are_compared(tmp_path: Path) -> None:
    configs = ("CONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\n", "CONFIG_A=y\nCONFIG_C=17\n")
    before, after = (
        downloaded(provider="local", path=local(tmp_path, vmlinux(f"6.{n}.1", config)))
        for n, config in enumerate(configs)
    )
    found = services.diff_kernels(before, after)
    assert found.options is not None
    assert [(one.option, one.before, one.after) for one in found.options] == [
        ("CONFIG_B", "m", "n"),
        ("CONFIG_C", "n", "17"),
    ]
    plain = make_kernel()
    assert services.diff_kernels(before, plain).options is None
    with pytest.raises(NotFound, match="not known"):
        services.kernel_config(plain)


def test_scores_count_real_boots() -> None:
    kernel, began = make_kernel(), timezone.now()
    vm = make_ready_vm(name="web")
    vm.boots.all().delete()
    for number, seconds in enumerate((4, 1, 2, 3, None, 0.5), 1):
        vm.boots.create(
            number=number,
            kernel=kernel,
            hypervisor="qemu",
            accelerator="tcg",
            launched_at=began,
            hello_at=seconds and began + timezone.timedelta(seconds=seconds),
            ended_at=began,
            resumed_from="warm" if seconds == 0.5 else "",
        )
    vm.boots.create(number=7, kernel=kernel, hypervisor="qemu", launched_at=began)
    (score,) = services.kernel_scores(kernel)
    assert (score.kernel, score.kernel_id) == (kernel.name, kernel.ref)
    assert score.image == vm.attachments.get().drive.image.name
    assert (score.boots, score.failures, score.p50, score.p95) == (5, 1, 2.0, 4.0)
    assert services.kernel_scores() == [score]
    assert services.kernel_scores(make_kernel()) == []


def test_offers_are_remembered_though_one_publisher_fails(
    released: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "images.providers.kernels.distro.DistroProvider.refresh", lambda self, arch: ()
    )
    released.publish("6.12.58")
    assert ended(services.refresh_kernels()).state == "succeeded"
    offers = services.list_kernel_offers().offers
    assert [offer.version for offer in offers if offer.provider == "anvil"] == ["6.12.58"]
    released.mirror.pages.clear()
    assert ended(services.refresh_kernels()).state == "failed"
    after = services.list_kernel_offers()
    assert after.offers == offers
    assert after.problem


def test_an_apt_that_reaches_nothing_is_told(tmp_path: Path) -> None:
    source = "deb [trusted=yes] http://127.0.0.1:9/debian stable main\n"
    (tmp_path / "sources.list").write_text(source)
    with pytest.raises(Retryable) as raised:
        DistroProvider(apt=tmp_path).refresh("x86_64")
    assert "This server's apt cannot reach its sources" in raised.value.text
    assert "127.0.0.1:9" in raised.value.detail
    assert "--provider distro --path FILE.deb" in raised.value.hint


def test_news_name_what_is_newer_than_what_is_here() -> None:
    kernels = [make_kernel(version="6.12.50", provider="built"), make_kernel(version="6.18.2-virt")]
    assert services.kernel_news(kernels).looked_at is None
    services.remember_kernel_news(["6.12.58", "6.18.2", "6.6.90", "7.1.3"], "7.1.3")
    said = services.kernel_news(kernels)
    assert (said.newer, said.latest, said.problem) == (["7.1.3", "6.12.58"], "7.1.3", "")
    services.remember_no_kernel_news("no network")
    assert services.kernel_news(kernels).newer == ["7.1.3", "6.12.58"]
    assert services.kernel_news(kernels).problem == "no network"


@pytest.mark.parametrize("online", [True, False])
def test_the_daily_look_asks_the_publisher(mirror: Mirror, settings: Any, online: bool) -> None:
    releases = [
        {"version": "6.18.9", "moniker": "stable", "iseol": False, "released": {"isodate": "x"}},
        {"version": "7.0-rc1", "moniker": "mainline", "iseol": False, "released": {"isodate": "x"}},
    ]
    document = {"latest_stable": {"version": "6.18.9"}, "releases": releases}
    if online:
        mirror.add("/releases.json", json.dumps(document).encode())
    set_up(settings, kernel_releases_url=mirror.url)
    news.look_when_due()
    mirror.requests.clear()
    news.look_when_due()
    assert mirror.requests == [], "once a day, also after a failure"
    found = services.kernel_news([])
    assert found.newer == (["6.18.9"] if online else [])
    assert bool(found.problem) is not online
