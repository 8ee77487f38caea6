from django.apps import AppConfig


class VmsConfig(AppConfig):
    name = "vms"
    verbose_name = "Virtual machines"

    def ready(self) -> None:
        from builds import machines
        from vms import tasks  # noqa: F401  (teaches workers this app's operations)
        from vms.build_machine import BuildMachines

        machines.provide(BuildMachines())
