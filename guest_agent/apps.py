from django.apps import AppConfig


class GuestAgentConfig(AppConfig):
    name = "guest_agent"
    verbose_name = "Guest agent"
