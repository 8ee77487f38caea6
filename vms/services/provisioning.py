"""What VMs are given when they start. Secret values go in here and never come out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from django.db import transaction

from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid, NotFound
from vms import provisioning_rules as rules
from vms import secrets
from vms.models import VM, ProvisionedFile, Provisioning
from vms.states import ALIVE

#: What people set; the rest of a row is the worker's.
SETTINGS = (
    *("env", "secret_env", "secret_names", "hosts", "dns"),
    *("script", "script_drive", "on_failure"),
)


@dataclass(frozen=True)
class GivenFile:
    """A file for the guest: its absolute path, its bytes, its permissions, whose it is."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    user: str = ""  # as of a program; root
    secret: bool = False


class Wanted(TypedDict, total=False):
    """What a guest is to be given. ``hosts``: name to address; ``on_failure``: warn or fail."""

    env: Mapping[str, str]
    secret_env: Mapping[str, str]
    hosts: Mapping[str, str]
    dns: Sequence[str]
    script: str
    on_failure: str
    files: Sequence[GivenFile]


class Changes(TypedDict, total=False):
    """The same, to be changed: None takes a variable or a host name away, ``files`` are added or
    replaced."""

    env: Mapping[str, str | None]
    secret_env: Mapping[str, str | None]
    hosts: Mapping[str, str | None]
    dns: Sequence[str]
    script: str
    on_failure: str
    files: Sequence[GivenFile]


def provisioning_of(vm: VM) -> Provisioning:
    """What the VM is given; an empty row, which is not saved, where nothing."""
    return Provisioning.objects.select_related("vm").filter(vm=vm).first() or Provisioning(vm=vm)


@transaction.atomic
def replace_provisioning(vm: VM, **wanted: Unpack[Wanted]) -> Provisioning:
    """Give the VM just this from its next start on. Raises ``Invalid`` for what cannot be."""
    row = _locked(vm)
    row.env, row.hosts = dict(wanted.get("env", {})), dict(wanted.get("hosts", {}))
    row.dns = list(wanted.get("dns", ()))
    row.on_failure = wanted.get("on_failure", Provisioning.OnFailure.WARN)
    _set_script(row, wanted.get("script", ""))
    _set_secrets(row, wanted.get("secret_env", {}))
    row.files.all().delete()
    return _saved(row, wanted.get("files", ()))


@transaction.atomic
def change_provisioning(vm: VM, **changes: Unpack[Changes]) -> Provisioning:
    """Change some of it; what is left out stays. Raises ``Invalid``, and ``Broken`` where secret
    variables are to stay that cannot be read any more."""
    row = _locked(vm)
    row.env = _merged(row.env, changes.get("env", {}))
    row.hosts = _merged(row.hosts, changes.get("hosts", {}))
    row.dns = list(changes.get("dns", row.dns))
    row.on_failure = changes.get("on_failure", row.on_failure)
    if "script" in changes:
        _set_script(row, changes["script"])
    if secret := changes.get("secret_env"):
        kept = {} if {*row.secret_names} <= {*secret} else secret_env(row)
        _set_secrets(row, _merged(kept, secret))
    return _saved(row, changes.get("files", ()))


@transaction.atomic
def clear_provisioning(vm: VM) -> None:
    """Give the VM nothing any more; what its guest has it keeps."""
    if Provisioning.objects.filter(vm=vm).delete()[0]:
        events.append("vm.provisioning_changed", vm)


@transaction.atomic
def remove_file(vm: VM, path: str) -> Provisioning:
    """Give the VM a file no more. Raises ``NotFound``."""
    row = provisioning_of(vm)
    if not ProvisionedFile.objects.filter(provisioning=row.pk, path=path).delete()[0]:
        raise NotFound(f"The VM “{vm.name}” is given no file {path[:100]}.", code="no-such-file")
    events.append("vm.provisioning_changed", vm)
    return row


@transaction.atomic
def run_script_again(vm: VM) -> Provisioning:
    """Have the first-boot script run at the next start. Raises ``Conflict`` for want of one."""
    row = _locked(vm)
    if not row.script:
        raise Conflict(f"The VM “{vm.name}” has no first-boot script.", code="no-script")
    row.script_drive = None
    row.save(update_fields=["script_drive"])
    events.append("vm.provisioning_changed", vm)
    return row


def copy_provisioning(vm: VM, clone: VM) -> None:
    """Give a clone what the VM is given; its script runs on the drive of its own."""
    row = Provisioning.objects.filter(vm=vm).first()
    if row is None:
        return
    values = {name: getattr(row, name) for name in SETTINGS} | {"script_drive": None}
    copy = Provisioning.objects.create(vm=clone, **values)
    for file in row.files.all():
        ProvisionedFile.objects.create(
            provisioning=copy,
            path=file.path,
            mode=file.mode,
            user=file.user,
            secret=file.secret,
            content=file.content,
            size=file.size,
        )


def secret_env(row: Provisioning) -> dict[str, str]:
    """The secret variables, for the guest alone. Raises ``Broken`` where the key is lost."""
    values: dict[str, str] = json.loads(secrets.unseal(row.secret_env.encode()))
    return values


def content_of(file: ProvisionedFile) -> bytes:
    """The file's bytes, for the guest alone. Raises ``Broken`` where the key is lost."""
    content = bytes(file.content)
    return secrets.unseal(content) if file.secret else content


def _locked(vm: VM) -> Provisioning:
    """The VM's row, which nobody else changes until the transaction ends.

    Of a guest that runs it says that this boot has been seen to, so that the next one begins.
    """
    now = VM.objects.select_for_update().get(pk=vm.pk)
    row = Provisioning.objects.select_for_update().filter(vm=vm).first()
    if row is not None:
        return row
    boot_id = now.agent.get("boot_id", "") if now.state in ALIVE else ""
    return Provisioning.objects.create(vm=vm, boot_id=boot_id)


def _merged(values: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged: dict[str, str | None] = {**values, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def _set_script(row: Provisioning, script: str) -> None:
    """Another script has not run yet."""
    rules.check_script(script)
    if script != row.script:
        row.script, row.script_drive = script, None


def _set_secrets(row: Provisioning, values: Mapping[str, str]) -> None:
    rules.check_variables(values)
    row.secret_names = sorted(values)
    row.secret_env = secrets.seal(json.dumps(dict(values)).encode()).decode() if values else ""


def _saved(row: Provisioning, files: Sequence[GivenFile]) -> Provisioning:
    rules.check_variables(row.env)
    rules.check_apart(row.env, row.secret_names)
    rules.check_hosts(row.hosts)
    rules.check_dns(row.dns)
    rules.check_settings(row.env, row.hosts, secret_size=len(row.secret_env) * 3 // 4)
    if row.on_failure not in Provisioning.OnFailure.values:
        raise Invalid("A failure is to warn or to fail.", code="bad-on-failure")
    row.save(update_fields=SETTINGS)
    for file in files:
        _put(row, file)
    rules.check_files_together(row.files.values_list("size", flat=True))
    events.append("vm.provisioning_changed", row.vm)
    return row


def _put(row: Provisioning, file: GivenFile) -> None:
    rules.check_file(file.path, file.mode, file.user, len(file.content))
    values: dict[str, Any] = {
        "mode": file.mode,
        "user": file.user,
        "secret": file.secret,
        "content": secrets.seal(file.content) if file.secret else file.content,
        "size": len(file.content),
    }
    ProvisionedFile.objects.update_or_create(provisioning=row, path=file.path, defaults=values)
