"""HTTP to Django, websockets to the consumers."""

from __future__ import annotations

import os

import django
from channels.routing import ProtocolTypeRouter

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "nexus_site.settings")
django.setup(set_prefix=False)

from nexus_site.handler import Handler  # noqa: E402  (needs the models loaded)
from nexus_site.incoming import Incoming  # noqa: E402
from nexus_site.sockets import sockets  # noqa: E402

application = ProtocolTypeRouter({"http": Incoming(Handler()), "websocket": sockets})
