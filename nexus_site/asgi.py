"""HTTP to Django, websockets to the consumers."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "nexus_site.settings")
pages = get_asgi_application()

from nexus_site import back_pressure, hanging_up  # noqa: E402
from nexus_site.sockets import sockets  # noqa: E402  (needs the models loaded)

hanging_up.install()
back_pressure.install()

application = ProtocolTypeRouter({"http": pages, "websocket": sockets})
