from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "nexus_site.core"
    label = "core"
    verbose_name = "Core"

    def ready(self) -> None:
        from django.urls import register_converter

        from nexus_site.core import tasks  # noqa: F401  (lets operations reach the queue)
        from nexus_site.core.ids import IDConverter

        register_converter(IDConverter, "id")
