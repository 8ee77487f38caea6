"""What a VM is given when it starts, as the API takes and tells it. Secret values only go in."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Literal, cast

from ninja import Field, Schema
from pydantic import StringConstraints

from nexus_site.core.errors import Invalid
from nexus_site.core.schemas import Input, listed
from vms.models import VM, ProvisionedFile, Provisioning
from vms.provisioning_records import WORKING
from vms.provisioning_rules import mode_of
from vms.services.provisioning import Changes, GivenFile, Wanted
from vms.states import ALIVE

OnFailure = Annotated[Provisioning.OnFailure, listed(Provisioning.OnFailure)]
Text = Annotated[str, StringConstraints(max_length=64 * 1024)]
Servers = Annotated[list[str], Field(max_length=16, description="IPv4 addresses.")]
Script = Annotated[
    str, Field(max_length=64 * 1024, description="Run once for each root drive, as root.")
]
Mode = Annotated[
    str, Field(max_length=5, description="In octal; empty: 0644, a secret one's 0600.")
]
User = Annotated[str, Field(max_length=100, description="name, uid, name:group; empty: root.")]


def file_of(path: str, content: bytes, mode: str, user: str, *, secret: bool) -> GivenFile:
    """Raises ``Invalid`` for a mode that is none."""
    bits = mode_of(mode) if mode else (0o600 if secret else 0o644)
    return GivenFile(path, content, bits, user, secret)


class ProvisionedFileIn(Input):
    path: str = Field(max_length=1000)
    content: str = Field("", max_length=2 << 20, repr=False)
    encoding: Literal["text", "base64"] = "text"
    mode: Mode = ""
    user: User = ""
    secret: bool = Field(False, description="Kept encrypted, and never told again.")

    def given(self) -> GivenFile:
        """Raises ``Invalid`` for what is no base64."""
        if self.encoding == "text":
            content = self.content.encode()
        else:
            try:
                content = base64.b64decode(self.content, validate=True)
            except binascii.Error:
                raise Invalid("The file's content is not base64.", code="bad-content") from None
        return file_of(self.path, content, self.mode, self.user, secret=self.secret)


class ProvisioningIn(Input):
    """All that a VM's guest is given; what is left out it is not given."""

    env: dict[str, Text] = Field({}, description="Variables of login shells and programs.")
    secret_env: dict[str, Text] = Field({}, repr=False, description="The secret ones.")
    hosts: dict[str, str] = Field({}, description="Host name to IP address, for /etc/hosts.")
    dns: Servers = []
    files: list[ProvisionedFileIn] = Field([], max_length=200)
    script: Script = ""
    on_failure: OnFailure = Provisioning.OnFailure.WARN

    def wanted(self) -> Wanted:
        given = self.model_dump(exclude={"files"})
        return cast("Wanted", given | {"files": [file.given() for file in self.files]})


class ProvisioningPatch(Input):
    """What is to change. Null takes a variable or a host name away; files are added or replaced."""

    env: dict[str, Text | None] | None = None
    secret_env: dict[str, Text | None] | None = Field(None, repr=False)
    hosts: dict[str, str | None] | None = None
    dns: Servers | None = None
    files: list[ProvisionedFileIn] = Field([], max_length=200)
    script: Script | None = None
    on_failure: OnFailure | None = None

    def changes(self) -> Changes:
        parts = self.model_dump(exclude={"files"})
        given = {name: value for name, value in parts.items() if value is not None}
        return cast("Changes", given | {"files": [file.given() for file in self.files]})


class UploadQuery(Schema):
    path: str = Field("", max_length=1000)
    mode: Mode = ""
    user: User = ""
    secret: bool = False


class ProvisionedFileOut(Schema):
    path: str
    mode: str
    user: str
    secret: bool
    size: int

    @staticmethod
    def resolve_mode(file: ProvisionedFile) -> str:
        return f"{file.mode:04o}"


class ScriptExit(Schema):
    """How the script ended: with a ``code`` or by a ``signal``; the other one is null."""

    code: int | None
    signal: int | None
    timed_out: bool


class ScriptLogOut(Schema):
    """The end of what the first-boot script wrote, without secret values."""

    text: str
    running: bool
    exit: ScriptExit | None = Field(description="Null: it has not ended yet, or never ran.")
    ended_at: datetime | None

    @staticmethod
    def resolve_text(row: Provisioning) -> str:
        return row.script_log

    @staticmethod
    def resolve_ended_at(row: Provisioning) -> datetime | None:
        return row.script_ended_at

    @staticmethod
    def resolve_running(row: Provisioning) -> bool:
        return row.phase == Provisioning.Phase.SCRIPT and row.vm.state in ALIVE

    @staticmethod
    def resolve_exit(row: Provisioning) -> Any:
        return row.script_exit or None


class ProvisioningOut(Schema):
    """What a VM's guest is given from its next start on, and how that went last."""

    env: dict[str, str]
    secret_env: list[str] = Field(description="Names; values are not told.")
    hosts: dict[str, str]
    dns: list[str]
    files: list[ProvisionedFileOut]
    script: str
    on_failure: OnFailure
    phase: str = Field(description="files, services, script, done, failed; empty: not begun.")
    problem: str = Field(description="Why it failed.")
    script_done: bool = Field(description="The script has run on the VM's root drive.")

    @staticmethod
    def resolve_secret_env(row: Provisioning) -> Any:
        return row.secret_names

    @staticmethod
    def resolve_files(row: Provisioning) -> Any:
        return list(row.files.defer("content"))

    @staticmethod
    def resolve_phase(row: Provisioning) -> str:
        """Of a VM that ended midway nothing is under way."""
        return "" if row.phase in WORKING and row.vm.state not in ALIVE else row.phase

    @staticmethod
    def resolve_script_done(row: Provisioning) -> bool:
        return script_done(row.vm, row)


def script_done(vm: VM, row: Provisioning) -> bool:
    """Whether the next start has no script to run."""
    if row.script_drive is None:
        return False
    return vm.attachments.filter(is_root=True, drive=row.script_drive).exists()
