from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class NexusSiteConfig(AppConfig):
    name = "nexus_site"
    verbose_name = "Nexus"


class NexusAdminConfig(AdminConfig):
    default_site = "nexus_site.admin.NexusAdminSite"
