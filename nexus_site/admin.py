"""The operators' admin: every model, searchable by ID, changes through services only."""

from __future__ import annotations

from django.contrib.admin import AdminSite


class NexusAdminSite(AdminSite):
    site_header = "Nexus admin"
    site_title = "Nexus admin"
    index_title = "Everything Nexus keeps"
    enable_nav_sidebar = False
