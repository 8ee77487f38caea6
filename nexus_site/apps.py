from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class NexusSiteConfig(AppConfig):
    name = "nexus_site"
    verbose_name = "Nexus"

    def ready(self) -> None:
        from nexus_site import tasks  # noqa: F401  (teaches workers to look at their host)


class NexusAdminConfig(AdminConfig):
    default_site = "nexus_site.admin.NexusAdminSite"
