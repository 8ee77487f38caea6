from django.apps import AppConfig


class DrivesConfig(AppConfig):
    name = "drives"
    verbose_name = "Drives"

    def ready(self) -> None:
        from drives import tasks  # noqa: F401  (teaches workers this app's operations)
