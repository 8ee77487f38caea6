from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


def number(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Until now all ran on QEMU, which was nobody's choice; and nobody had a slot."""
    for slot, vm in enumerate(apps.get_model("vms", "VM").objects.order_by("created_at"), 1):
        vm.slot, vm.vmm, vm.hypervisor = slot, "qemu", "auto"
        vm.save(update_fields=["slot", "vmm", "hypervisor"])


class Migration(migrations.Migration):
    dependencies = [
        ("vms", "0002_snapshots"),
    ]

    operations = [
        migrations.AddField(
            model_name="boot",
            name="metrics",
            field=models.JSONField(default=dict, help_text="The VMM's own counters, as last seen."),
        ),
        migrations.AddField(
            model_name="vm",
            name="disk_iops",
            field=models.PositiveIntegerField(
                blank=True, help_text="How often each disk may do so in a second.", null=True
            ),
        ),
        migrations.AddField(
            model_name="vm",
            name="disk_mib_s",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="What each disk may read and write in a second, in MiB.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="vm",
            name="network_mib_s",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="What it may send, and receive, in a second, in MiB.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="vm",
            name="vmm",
            field=models.CharField(
                blank=True,
                editable=False,
                help_text="What it runs on, or ran on last.",
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="vm",
            name="hypervisor",
            field=models.CharField(
                choices=[
                    ("auto", "automatic"),
                    ("firecracker", "Firecracker"),
                    ("qemu", "QEMU"),
                ],
                default="auto",
                help_text="What it is to run on; automatic: the best that works here.",
                max_length=20,
            ),
        ),
        migrations.AddField(
            model_name="vm", name="slot", field=models.PositiveIntegerField(null=True)
        ),
        migrations.RunPython(number, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="vm",
            name="slot",
            field=models.PositiveIntegerField(
                editable=False,
                help_text="Its number on this host: vsock CID and user ID come from it.",
                unique=True,
            ),
        ),
    ]
