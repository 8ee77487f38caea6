"""Where every websocket is."""

from __future__ import annotations

from channels.routing import URLRouter
from django.urls import path

from builds.consumers import BuildLogConsumer, KernelBuildLogConsumer
from nexus_site.core.consumers import EventConsumer, pulses, same_origin
from nexus_site.core.life import WorkerPulse
from vms.consumers import ConsoleConsumer, Heartbeats
from vms.exec_socket import ExecConsumer
from vms.port_socket import PortConsumer
from vms.sessions_socket import SessionConsumer

pulses += [Heartbeats(), WorkerPulse()]
sockets = same_origin(
    URLRouter(
        [
            path("ws/events", EventConsumer.as_asgi()),
            path("ws/vms/<str:ref>/console", ConsoleConsumer.as_asgi()),
            path("ws/vms/<str:ref>/exec", ExecConsumer.as_asgi()),
            path("ws/vms/<str:ref>/ports/<int:port>", PortConsumer.as_asgi()),
            path("ws/vms/<str:ref>/sessions/<str:session_id>", SessionConsumer.as_asgi()),
            path("ws/builds/<str:ref>/log", BuildLogConsumer.as_asgi()),
            path("ws/kernel-builds/<str:ref>/log", KernelBuildLogConsumer.as_asgi()),
        ]
    )
)
