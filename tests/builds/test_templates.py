"""Templates: versions that never change, two people who edit, documents from elsewhere."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pytest_django import DjangoCaptureOnCommitCallbacks

from builds import services
from builds.log import log_path
from builds.models import Build, Template, TemplateVersion
from builds.recipe import Recipe, parse
from builds.template_yaml import TemplateDocument, dump, load
from images import services as image_services
from images.models import Rootfs
from nexus_site.core.errors import Conflict, Invalid, NotFound
from nexus_site.core.models import Event
from tests.factories import make_build, make_image, make_rootfs, make_template

pytestmark = pytest.mark.usefixtures("db", "nudges")

CURL = parse({"packages": ["curl"]})
GIT = parse({"packages": ["git"]})


@pytest.fixture
def template() -> Template:
    return services.create_template(name="web", rootfs=make_rootfs(), recipe=CURL)


def last_event() -> Event:
    return Event.objects.latest("seq")


def numbers(template: Template) -> list[int]:
    return sorted(template.versions.values_list("number", flat=True))


# Making and changing


def test_a_new_template_has_one_version(template: Template) -> None:
    assert numbers(template) == [1]
    assert template.current.parsed == CURL
    assert last_event().kind == "template.created"


def test_a_template_without_a_recipe_is_its_root_file_system() -> None:
    assert services.create_template(rootfs=make_rootfs()).current.parsed == Recipe()


@pytest.mark.parametrize(
    ("name", "code"),
    [("Web", "name-rule"), ("new", "name-reserved"), ("import", "name-reserved")],
)
def test_a_name_follows_the_rules(name: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        services.create_template(name=name, rootfs=make_rootfs())
    assert caught.value.code == code


def test_a_description_has_bounds(template: Template) -> None:
    with pytest.raises(Invalid, match="at most 200"):
        services.update_template(template, description="x" * 201)


def test_editing_makes_a_version_and_leaves_the_old_one_alone(template: Template) -> None:
    first = template.current
    services.update_template(template, recipe=GIT)
    assert numbers(template) == [1, 2]
    assert template.current.parsed == GIT
    first.refresh_from_db()
    assert first.parsed == CURL
    assert (last_event().kind, last_event().data) == ("template.changed", {"version": 2})


def test_a_build_keeps_the_version_that_it_used(template: Template) -> None:
    build = make_build(template=template)
    services.update_template(template, recipe=GIT)
    build.refresh_from_db()
    assert build.template_version.number == 1
    assert build.template_version.parsed == CURL


def test_what_changes_nothing_makes_no_version(template: Template) -> None:
    before = Event.objects.count()
    same = parse({"packages": ["curl"], "env": {}, "init": "auto"})
    services.update_template(template, recipe=same, rootfs=make_rootfs(), description="")
    assert numbers(template) == [1]
    assert Event.objects.count() == before


def test_another_root_file_system_makes_a_version(template: Template) -> None:
    services.update_template(template, rootfs=make_rootfs(version="3.24"))
    assert template.current.rootfs.version == "3.24"
    assert template.current.parsed == CURL, "the recipe stays"


def test_a_description_is_of_the_template_not_of_a_version(template: Template) -> None:
    changed = services.update_template(template, description=" Our \n pages ")
    assert changed.description == "Our pages"
    assert numbers(template) == [1]
    assert last_event().data == {"description": "Our pages"}


def test_of_two_people_who_edit_one_version_the_second_is_told(template: Template) -> None:
    services.update_template(template, recipe=GIT, expected_version=1)
    with pytest.raises(Conflict) as caught:
        services.update_template(template, recipe=Recipe(), expected_version=1)
    assert caught.value.code == "template-changed"
    assert caught.value.extra == {"current_version": 2}
    assert "version 2 is there, and this was made from version 1" in caught.value.text
    assert template.current.parsed == GIT, "nothing of the second is kept"


def test_a_change_is_all_or_nothing(template: Template) -> None:
    make_template(name="taken")
    with pytest.raises(Conflict):
        services.update_template(template, name="taken", recipe=GIT)
    with pytest.raises(Invalid):
        services.update_template(template, name="fresh", description="x" * 201)
    template.refresh_from_db()
    assert (template.name, numbers(template)) == ("web", [1])


def test_renaming(template: Template) -> None:
    assert services.rename_template(template, "shop").name == "shop"
    assert (last_event().kind, last_event().data) == ("template.renamed", {"before": "web"})
    assert numbers(template) == [1]


def test_reverting_makes_a_new_version_like_the_old_one(template: Template) -> None:
    services.update_template(template, recipe=GIT, rootfs=make_rootfs(version="3.24"))
    services.revert_template(template, 1)
    assert numbers(template) == [1, 2, 3]
    assert (template.current.parsed, template.current.rootfs.version) == (CURL, "3.23")


def test_reverting_to_what_never_was_says_what_there_is(template: Template) -> None:
    with pytest.raises(NotFound, match="no version 7") as caught:
        services.revert_template(template, 7)
    assert caught.value.hint == "It has version 1 alone."


def test_a_copy_goes_its_own_way(template: Template) -> None:
    services.update_template(template, recipe=GIT, description="Our pages")
    copy = services.copy_template(template, name="shop")
    assert (copy.description, numbers(copy), copy.current.parsed) == ("Our pages", [1], GIT)
    assert services.copy_template(template, number=1).current.parsed == CURL
    services.update_template(copy, recipe=Recipe())
    assert template.current.parsed == GIT


def test_a_plain_template_is_found_until_it_says_more() -> None:
    rootfs = make_rootfs()
    template = services.create_template(name="alpine", rootfs=rootfs)
    assert services.template_for(rootfs, "alpine") == template
    assert services.template_for(make_rootfs(version="3.24"), "alpine") is None
    services.update_template(template, recipe=CURL)
    assert services.template_for(rootfs, "alpine") is None


# Deleting


def test_deleting_takes_versions_builds_and_logs(
    template: Template, django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks
) -> None:
    build = make_build(template=template, state=Build.State.FAILED)
    log_path(build).parent.mkdir(parents=True, exist_ok=True)
    log_path(build).write_text("it failed\n")
    with django_capture_on_commit_callbacks(execute=True):
        services.delete_template(template)
    assert not Template.objects.exists()
    assert not TemplateVersion.objects.exists()
    assert not Build.objects.exists()
    assert not log_path(build).exists()
    assert last_event().kind == "template.deleted"


def test_a_template_whose_image_is_here_stays(template: Template) -> None:
    image = make_image(name="web-image")
    build = make_build(template=template, image=image, state=Build.State.SUCCEEDED)
    services.update_template(template, recipe=GIT)
    with pytest.raises(Conflict, match="web-image") as caught:
        services.delete_template(template)
    assert caught.value.code == "template-used"
    Build.objects.filter(pk=build.pk).update(image=None)
    services.delete_template(template)
    assert not Template.objects.exists()


def test_a_template_that_is_being_built_stays(template: Template) -> None:
    build = make_build(template=template, state=Build.State.RUNNING)
    with pytest.raises(Conflict, match="being built") as caught:
        services.delete_template(template)
    assert build.ref in caught.value.hint


# Documents


def document(text: str = "", name: str = "web") -> TemplateDocument:
    return load(f"name: {name}\nrootfs: {{distro: alpine, version: 3.23}}\n{text}")


def test_an_export_is_imported_elsewhere(template: Template) -> None:
    text = dump(template, template.current)
    services.delete_template(template)
    made = services.import_template(load(text))
    assert (made.name, made.current.parsed, made.current.number) == ("web", CURL, 1)


def test_an_import_replaces_only_when_it_is_told_to(template: Template) -> None:
    with pytest.raises(Conflict) as caught:
        services.import_template(document("packages: [git]"))
    assert caught.value.code == "name-taken"
    made = services.import_template(document("packages: [git]"), replace=True)
    assert made == template
    assert (numbers(template), template.current.parsed) == ([1, 2], GIT)


def test_a_document_without_a_name_gets_one() -> None:
    make_rootfs()
    assert services.import_template(document(name="")).name


def test_editing_as_a_document_renames_too(template: Template) -> None:
    services.edit_template(template, document("description: Shop", "shop"), expected_version=1)
    template.refresh_from_db()
    assert (template.name, template.description) == ("shop", "Shop")
    assert template.current.parsed == Recipe(), "the document is all there is"


def test_a_root_file_system_that_is_not_here_comes_with_a_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer = SimpleNamespace(distro="alpine", version="3.24")
    monkeypatch.setattr(image_services, "find_rootfs", lambda *wish: offer)
    text = "name: x\nrootfs: {distro: alpine, version: 3.24}\n"
    with pytest.raises(NotFound) as caught:
        services.import_template(load(text))
    assert caught.value.code == "rootfs-not-installed"
    assert caught.value.hint == "Fetch it: nexusctl rootfs download alpine 3.24"


def test_another_root_file_system_of_the_same_name_is_a_conflict(template: Template) -> None:
    digest = "ef" * 32
    text = f"name: x\nrootfs: {{distro: alpine, version: 3.23, sha256: {digest}}}\n"
    with pytest.raises(Conflict) as caught:
        services.import_template(load(text))
    assert caught.value.code == "rootfs-differs"
    assert digest in caught.value.detail


def test_the_same_bytes_of_another_provider_will_do(template: Template) -> None:
    mirror = Rootfs.objects.get()
    other = Rootfs.objects.create(
        distro="alpine",
        version="3.23",
        arch="x86_64",
        provider="mirror",
        format="tar.gz",
        filename="x",
        sha256="ef" * 32,
        size_bytes=1,
    )
    same = f"{{distro: alpine, version: 3.23, provider: gone, sha256: {other.sha256}}}"
    made = services.import_template(load(f"name: a\nrootfs: {same}\n"))
    assert made.current.rootfs == other
    named = "{distro: alpine, version: 3.23, provider: mirror}"
    assert services.import_template(load(f"rootfs: {named}\n")).current.rootfs == other
    of_it = f"{{distro: alpine, version: 3.23, provider: {mirror.provider}}}"
    assert services.import_template(load(f"rootfs: {of_it}\n")).current.rootfs == mirror
