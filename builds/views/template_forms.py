"""Making and editing templates: as a form, or as YAML with ``?as=yaml``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from builds import queries, services
from builds.diffs import compare
from builds.forms import TemplateEditor, YamlForm, too_large
from builds.models import Template
from builds.services.documents import rootfs_of
from builds.template_yaml import TemplateDocument, dump, dump_values
from images.models import Rootfs
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.ids import resolve

EXAMPLE = """\
name: web
rootfs:
  distro: alpine
  version: 3.23
overlays:
  - path: /etc/motd
    content: |
      Hello.
packages:
  - nginx
commands:
  - rc-update add nginx
"""


@require_http_methods(["GET", "POST"])
@page("operate")
def new_template(request: Request) -> HttpResponse:
    """A template of a root file system that is kept here."""
    if _wants_yaml(request):
        return _new_from_yaml(request)
    asked = request.POST.get("row", "")
    values = {"init": "auto", "rootfs": request.GET.get("rootfs", "")}
    editor = TemplateEditor(request.POST or None, values=values, asked=asked)
    if editor.is_bound and editor.is_valid():
        arguments = editor.arguments()
        del arguments["expected_version"]
        try:
            template = services.create_template(**arguments)
        except NexusError as error:
            editor.refuse(error)
        else:
            return go_to(request, _page_of(template))
    context = {"editor": editor, "any_rootfs": Rootfs.objects.exists()}
    return _render(request, "builds/_editor.html", context, refused=editor.is_bound)


def _new_from_yaml(request: Request) -> HttpResponse:
    form = YamlForm(request.POST or None, initial={"text": EXAMPLE})
    if form.is_bound and form.is_valid():
        try:
            template = services.import_template(form.document)
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, _page_of(template))
    return _render(request, "builds/_yaml_editor.html", {"form": form}, refused=form.is_bound)


@require_http_methods(["GET", "POST"])
@page("operate")
def edit_template(request: Request, ref: str) -> HttpResponse:
    """The current version, to be made into the next one."""
    template = resolve(queries.template_detail(), ref)
    if _wants_yaml(request) or too_large(template.current):
        return _edit_yaml(request, template)
    asked = request.POST.get("row", "")
    if request.method == "POST":
        editor = TemplateEditor(request.POST, asked=asked)
    else:
        editor = TemplateEditor.of(template, template.current)
    context: dict[str, Any] = {"editor": editor, "template": template, "any_rootfs": True}
    if editor.is_bound and editor.is_valid():
        arguments = editor.arguments() | {"name": None}
        try:
            return _saved(request, template, services.update_template(template, **arguments))
        except NexusError as error:
            description, rootfs = arguments["description"], arguments["rootfs"]
            mine = partial(dump_values, template.name, description, rootfs, editor.recipe)
            context |= _conflict(error, template, arguments["expected_version"], mine)
            if "conflict" not in context:
                editor.refuse(error)
    return _render(request, "builds/_editor.html", context, refused=editor.is_bound)


def _edit_yaml(request: Request, template: Template) -> HttpResponse:
    newest = template.current
    initial = {
        "text": dump(template, newest, header=False),
        "expected_version": newest.number,
    }
    form = YamlForm(request.POST or None, initial=initial)
    context: dict[str, Any] = {"form": form, "template": template}
    if form.is_bound and form.is_valid():
        document = form.document
        version = form.cleaned_data["expected_version"]
        try:
            saved = services.edit_template(template, document, expected_version=version)
            return _saved(request, template, saved)
        except NexusError as error:
            mine = partial(_text_of, template, document)
            context |= _conflict(error, template, version, mine)
            if "conflict" not in context:
                form.refuse(error)
    return _render(request, "builds/_yaml_editor.html", context, refused=form.is_bound)


def _saved(request: Request, before: Template, saved: Template) -> HttpResponse:
    number = saved.current.number
    text = f"Version {number} of {saved.name} is saved."
    if number == before.current.number:
        text = f"Nothing in the recipe has changed: {saved.name} stays at version {number}."
    return go_to(request, _page_of(saved), text)


def _text_of(template: Template, document: TemplateDocument) -> str:
    """What a document would be once it is saved, so that only what it says differs."""
    return dump_values(
        document.name or template.name,
        document.description,
        rootfs_of(document),
        document.recipe,
    )


def _conflict(
    error: NexusError, template: Template, base: int, mine: Callable[[], str]
) -> dict[str, Any]:
    """What both people changed, when the version that this one started from is not current."""
    if not isinstance(error, Conflict) or error.code != "template-changed":
        return {}
    newest = services.find_version(template, error.extra["current_version"])
    theirs = dump(template, newest, header=False)
    started = dump(template, services.find_version(template, base), header=False)
    return {
        "conflict": error,
        "newest": newest.number,
        "theirs": compare(started, theirs),
        "mine": compare(theirs, mine()),
    }


def _render(
    request: Request, editor: str, context: dict[str, Any], *, refused: bool
) -> HttpResponse:
    template = context.get("template")
    name = "builds/edit_template.html" if template else "builds/new_template.html"
    here = reverse("builds:edit-template", args=[template.ref]) if template else None
    context |= {
        "area": "templates",
        "editor_template": editor,
        "as_yaml": editor == "builds/_yaml_editor.html",
        "here": here or reverse("builds:new-template"),
    }
    return render_page(request, name, context, fragments=(editor,), status=422 if refused else 200)


def _wants_yaml(request: Request) -> bool:
    return request.GET.get("as") == "yaml"


def _page_of(template: Template) -> str:
    return reverse("builds:template", args=[template.ref])
