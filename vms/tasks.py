"""Which operations of this app workers can run."""

from __future__ import annotations

from nexus_site.core.operations import register
from vms import (
    ballooning,
    chain,
    cloning,
    forking,
    lifecycle,
    plugging,
    pooling,
    rollback,
    snapshotting,
    suspending,
    upgrading,
    warming,
)

register("image.from-upload", chain.plan, chain.import_failed)
for source in ("rootfs", "template", "image"):
    register(f"image.from-{source}", chain.plan)
    register(f"drive.from-{source}", chain.plan)
    register(f"vm.from-{source}", chain.plan, lifecycle.start_failed)
register("vm.create", lifecycle.create_plan, lifecycle.create_failed)
register("vm.start", lifecycle.start_plan, lifecycle.start_failed)
register("vm.pause", suspending.pause_plan)
register("vm.unpause", suspending.unpause_plan)
register("vm.suspend", suspending.suspend_plan)
register("vm.stop", lifecycle.stop_plan)
register("vm.restart", lifecycle.restart_plan, lifecycle.start_failed)
register("vm.balloon", ballooning.plan)
register("vm.agent-upgrade", upgrading.plan)
register("vm.delete", lifecycle.delete_plan)
register("vm.clone", cloning.plan)
register("vm.fork", forking.plan, forking.failed)
register("vm.snapshot", snapshotting.take_plan)
register("vm-snapshot.delete", snapshotting.delete_plan, snapshotting.delete_failed)
register("vm.rollback", rollback.vm_plan, lifecycle.start_failed)
register("drive.rollback", rollback.drive_plan, lifecycle.start_failed)
register("warm.make", warming.make_plan, warming.make_failed)
register("warm.delete", warming.delete_plan)
register("pool.fill", pooling.fill_plan, pooling.fill_failed)
register("pool.clear", pooling.clear_plan)
register("pool.take", pooling.take_plan)
register("drive.plug", plugging.plug_plan, plugging.plug_failed)
register("drive.unplug", plugging.unplug_plan)
