from django.apps import AppConfig


class VmsConfig(AppConfig):
    name = "vms"
    verbose_name = "Virtual machines"

    def ready(self) -> None:
        from builds import machines
        from drives import live
        from images import kernel_boots
        from images.services import (
            ask_for_kernel_users,
            ask_for_users,
            guard_images,
            keep_derived,
        )
        from vms import tasks  # noqa: F401  (teaches workers this app's operations)
        from vms.build_machine import BuildMachines
        from vms.kernel_boots import KernelBoots
        from vms.live_drives import LiveDrives
        from vms.queries import vms_on_firecracker, vms_on_kernels
        from vms.services.pools import require_no_pool
        from vms.warming import ImageCopies

        machines.provide(BuildMachines())
        kernel_boots.provide(KernelBoots())
        live.provide(LiveDrives())
        ask_for_users(vms_on_firecracker)
        ask_for_kernel_users(vms_on_kernels)
        keep_derived(ImageCopies())
        guard_images(require_no_pool)
