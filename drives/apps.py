from django.apps import AppConfig


class DrivesConfig(AppConfig):
    name = "drives"
    verbose_name = "Drives"

    def ready(self) -> None:
        pass
