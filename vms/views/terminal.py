"""The page with a VM's terminals: its sessions, each a tab, and the serial console.

The page says which sessions there are; what they write and take goes over their websockets.
"""

from __future__ import annotations

import json
import logging
import re

from asgiref.sync import async_to_sync
from django.http import HttpResponse
from django.views.decorators.http import require_safe

from guest_agent.sessions import Sessions, SessionState
from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, page, render_page
from vms.agents import GatewayAgent
from vms.models import VM
from vms.states import State
from vms.views.frame import FRAME_FRAGMENTS, console_end, frame

log = logging.getLogger(__name__)

FRAGMENTS = (*FRAME_FRAGMENTS, "vms/_terminal_state.html")
LIST_TIMEOUT = 3.0  # seconds; the page does without the list of a guest that is slower
#: What Nexus names sessions; a guest could say anything, and the page makes addresses of it.
ID = re.compile(r"[A-Za-z0-9-]{1,64}")
LONGEST_COMMAND = 80  # characters


@require_safe
@page()
def terminal(request: Request, ref: str) -> HttpResponse:
    """The terminals of one VM; who may only look gets the console alone."""
    context = frame(ref, "vms:terminal")
    vm: VM = context["vm"]
    may_type = request.caller.may("operate")
    context |= {
        "may_type": may_type,
        "sessions": lambda: json.dumps(_sessions(vm) if may_type else None),
        "console_page": console_end(request, vm),
    }
    return render_page(request, "vms/terminal.html", context, fragments=FRAGMENTS)


def _sessions(vm: VM) -> list[dict[str, object]] | None:
    """What the page must know of each session; None where the guest does not say."""
    if vm.state != State.READY:
        return None
    try:
        found = async_to_sync(Sessions(GatewayAgent(vm)).list)(LIST_TIMEOUT)
    except NexusError as error:
        log.info("the sessions of %s are not known: %s", vm.name, error.text)
        return None
    return [_about(session) for session in found if ID.fullmatch(session.id)]


def _about(session: SessionState) -> dict[str, object]:
    command = " ".join(session.argv)
    name = session.argv[0].rpartition("/")[2].lstrip("-") if session.argv else ""
    return {
        "id": session.id,
        "name": name or "program",
        "command": command[:LONGEST_COMMAND],
        "size": session.size,
        "over": session.exit is not None,
    }
