"""Root file systems from wish to row: found, fetched, verified, deleted; providers as rows."""

from __future__ import annotations

import platform

import pytest

from images import services
from images.models import Provider, Rootfs
from images.providers.base import RootfsOffer
from images.services.rootfs import keeping_place
from nexus_site.core import operations
from nexus_site.core.errors import Conflict, Invalid, NotFound
from nexus_site.core.models import Event, Operation
from tests.factories import make_image, make_rootfs
from tests.images.downloads.server import Mirror
from tests.images.providers.alpine_mirror import AlpineMirror

ARCH = platform.machine()
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]


@pytest.fixture
def alpine(mirror: Mirror) -> AlpineMirror:
    """A mirror, and the provider ``alpine`` pointed at it."""
    alpine = AlpineMirror(mirror, ARCH)
    alpine.publish("3.22.4")
    alpine.publish("3.24.1", "latest-stable")
    row = Provider.objects.get(name="alpine")
    services.update_provider(row, config={"base_url": alpine.base_url})
    return alpine


def ended(operation: Operation) -> Operation:
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def fetched(distro: str, version: str, provider: str = "") -> Rootfs:
    operation = ended(services.download_rootfs(distro, version, provider))
    assert operation.state == "succeeded", operation.error
    return Rootfs.objects.get(pk=services.installed_rootfs(distro, version, provider).pk)


def test_a_version_that_nobody_listed_is_asked_for_and_remembered(alpine: AlpineMirror) -> None:
    assert services.find_rootfs("alpine", "3.24").size_bytes is None
    rootfs = fetched("alpine", "3.24")
    assert (rootfs.version, rootfs.provider, rootfs.verification) == ("3.24.1", "alpine", "sha256")
    assert services.rootfs_path(rootfs).read_bytes() == alpine.contents["3.24.1"]
    assert rootfs.source.startswith(alpine.base_url)
    assert services.find_rootfs("alpine", "3.24").version == "3.24.1"
    assert Event.objects.filter(kind="rootfs.created", subject_id=rootfs.pk).count() == 1


def test_what_is_here_is_not_fetched_again(alpine: AlpineMirror) -> None:
    first = fetched("alpine", "3.24")
    requests = len(alpine.mirror.requests)
    operation = ended(services.download_rootfs("Alpine", "3.24.1"))
    assert operation.steps[0]["state"] == "skipped"
    assert operation.result == {"rootfs": first.ref}
    assert len(alpine.mirror.requests) == requests


def test_the_embedded_one_comes_first_and_a_provider_can_be_named(alpine: AlpineMirror) -> None:
    alpine.publish("3.23.5")
    assert services.find_rootfs("alpine", "3.23").provider == "embedded"
    assert services.find_rootfs("alpine", "3.23", "alpine").provider == "alpine"
    assert fetched("alpine", "3.23", "alpine").version == "3.23.5"
    assert services.installed_rootfs("alpine", "3.23", "embedded") is None


def test_the_newest_of_several_releases_is_meant() -> None:
    for version in ("3.9.2", "3.9.10", "3.10.1"):
        make_rootfs(version=version, provider="alpine")
    found = services.installed_rootfs("alpine", "3.9")
    assert found is not None
    assert found.version == "3.9.10"
    assert services.installed_rootfs("alpine", "3.1") is None


def test_a_version_may_be_said_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = RootfsOffer("debian", "bookworm", ARCH, "debian", "f", None, "tar", aliases=("12",))
    monkeypatch.setattr("images.providers.debian.DebianProvider.offers", lambda self: [offer])
    assert services.installed_rootfs("debian", "12") is None
    kept = make_rootfs("debian", "bookworm", provider="debian")
    for wish in ("12", "bookworm", "Bookworm"):
        assert services.find_rootfs("Debian", wish) == offer
        assert services.installed_rootfs("Debian", wish) == kept
    assert services.installed_rootfs("debian", "1") is None


def test_a_lost_file_is_fetched_again_but_never_as_another(alpine: AlpineMirror) -> None:
    rootfs = fetched("alpine", "3.24")
    services.rootfs_path(rootfs).unlink()
    assert fetched("alpine", "3.24").pk == rootfs.pk
    assert services.rootfs_path(rootfs).exists()
    services.rootfs_path(rootfs).unlink()
    Rootfs.objects.filter(pk=rootfs.pk).update(sha256="0" * 64)
    operation = ended(services.download_rootfs("alpine", "3.24"))
    assert operation.error["code"] == "rootfs-changed"


def test_the_file_is_verified_at_any_time(alpine: AlpineMirror) -> None:
    rootfs = fetched("alpine", "3.24")
    assert ended(services.verify_rootfs(rootfs)).state == "succeeded"
    path = services.rootfs_path(rootfs)
    path.chmod(0o600)
    path.write_bytes(b"x" + path.read_bytes()[1:])
    operation = ended(services.verify_rootfs(rootfs))
    assert (operation.state, operation.error["code"]) == ("failed", "rootfs-damaged")
    rootfs.refresh_from_db()
    assert rootfs.verified_at is None
    path.unlink()
    assert "missing" in ended(services.verify_rootfs(rootfs)).error["text"]
    kinds = Event.objects.filter(subject_id=rootfs.pk, kind__startswith="rootfs.")
    assert {event.kind for event in kinds} == {
        "rootfs.created",
        "rootfs.verified",
        "rootfs.damaged",
    }


def test_a_rootfs_is_deleted_with_its_file_unless_something_needs_it(
    alpine: AlpineMirror,
) -> None:
    rootfs = fetched("alpine", "3.24")
    path = services.rootfs_path(rootfs)
    image = make_image(rootfs=rootfs, name="hello")
    with pytest.raises(Conflict, match="image hello"):
        services.delete_rootfs(rootfs)
    assert path.exists()
    image.delete()
    services.delete_rootfs(rootfs)
    assert not path.parent.exists()
    assert not Rootfs.objects.filter(pk=rootfs.pk).exists()


def test_refreshing_keeps_what_is_offered(alpine: AlpineMirror) -> None:
    row = Provider.objects.get(name="alpine")
    operation = ended(services.refresh_provider(row))
    assert operation.state == "succeeded", operation.error
    versions = [o.version for o in services.list_rootfs_offers() if o.provider == "alpine"]
    assert versions == ["3.24.1", "3.22.4"]
    row.refresh_from_db()
    assert row.refreshed_at is not None
    requests = len(alpine.mirror.requests)
    services.list_rootfs_offers()
    assert len(alpine.mirror.requests) == requests, "no page waits for a network"


def test_a_publisher_that_cannot_be_asked_is_a_problem_of_its_row(alpine: AlpineMirror) -> None:
    row = Provider.objects.get(name="alpine")
    alpine.mirror.pages.clear()
    assert ended(services.refresh_provider(row)).state == "failed"
    row.refresh_from_db()
    assert "no such file" in row.problem


def test_what_no_provider_has_is_not_found(alpine: AlpineMirror) -> None:
    with pytest.raises(NotFound) as unknown:
        services.find_rootfs("plan9", "4")
    assert "alpine 3.23" in unknown.value.hint
    operation = ended(services.download_rootfs("alpine", "3.99"))
    assert operation.error["code"] == "rootfs-not-found"


def test_a_disabled_provider_offers_nothing() -> None:
    for row in Provider.objects.all():
        services.update_provider(row, enabled=False)
    assert services.list_rootfs_offers() == []
    with pytest.raises(NotFound, match="no root file system"):
        services.find_rootfs("alpine", "3.23")


def test_a_provider_is_made_changed_and_deleted_by_the_rules(alpine: AlpineMirror) -> None:
    config = {"base_url": alpine.base_url}
    made = services.create_provider("mirror", "alpine", config, position=1)
    assert made.config == {**config, "keyring": ""}
    rootfs = fetched("alpine", "3.24")
    assert rootfs.provider == "mirror"
    services.update_provider(made, name="local", enabled=False)
    services.delete_provider(made)
    assert Rootfs.objects.filter(pk=rootfs.pk).exists()
    kinds = Event.objects.filter(subject_id=made.pk).order_by("seq").values_list("kind", flat=True)
    assert list(kinds) == ["provider.created", "provider.changed", "provider.deleted"]


def test_new_configuration_forgets_what_the_old_one_offered(alpine: AlpineMirror) -> None:
    row = Provider.objects.get(name="alpine")
    ended(services.refresh_provider(row))
    row.refresh_from_db()
    services.update_provider(row, config={"base_url": "http://127.0.0.1:1"})
    assert not [o for o in services.list_rootfs_offers() if o.provider == "alpine"]


@pytest.mark.parametrize(
    ("name", "type_name", "config", "error"),
    [
        ("alpine", "alpine", {}, Conflict),
        ("Mine", "alpine", {}, Invalid),
        ("upload", "alpine", {}, Invalid),
        ("m" * 41, "alpine", {}, Invalid),
        ("mine", "nothing", {}, Invalid),
        ("mine", "embedded", {"x": "y"}, Invalid),
        ("mine", "tarball", {}, Invalid),
    ],
)
def test_a_provider_that_breaks_a_rule_is_not_made(
    name: str, type_name: str, config: dict[str, str], error: type[Exception]
) -> None:
    count = Provider.objects.count()
    with pytest.raises(error):
        services.create_provider(name, type_name, config)
    assert Provider.objects.count() == count


def test_a_name_in_a_mirror_s_answer_leads_nowhere_else() -> None:
    for version in ("../../etc", "a/b", "", ".."):
        with pytest.raises(Invalid):
            keeping_place(RootfsOffer("x", version, "x86_64", "mine", "f", None, "tar"))
