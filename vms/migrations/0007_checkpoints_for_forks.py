from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("vms", "0006_instant_start")]

    operations = [
        migrations.AddField(
            model_name="vmsnapshot",
            name="for_forks",
            field=models.BooleanField(
                default=False,
                editable=False,
                help_text="Taken for forks alone: it goes once all of them have gone on from it.",
            ),
        ),
    ]
