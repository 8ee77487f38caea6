"""Sessions, the programs that live on in VMs, as the API takes and gives them."""

from __future__ import annotations

from ninja import Field

from guest_agent.chunks import MAX_SIDE
from guest_agent.exec import Program
from guest_agent.sessions import MAX_OFFSET
from nexus_site.core.schemas import Input
from vms.exec_schemas import ProgramIn, TerminalIn


class LookIn(Input):
    """The first message of a session's socket."""

    offset: int = Field(0, ge=0, le=MAX_OFFSET, description="Bytes of output before it.")
    rows: int | None = Field(None, ge=1, le=MAX_SIDE, description="The client's terminal's.")
    cols: int | None = Field(None, ge=1, le=MAX_SIDE)
    start: ProgramIn | None = Field(None, description="Begun where there is no such session.")

    def program(self) -> Program:
        """What is to be started: in a terminal of the client's size."""
        assert self.start is not None
        size = {"rows": self.rows or 24, "cols": self.cols or 80}
        terminal = self.start.tty or TerminalIn.model_validate(size)
        return self.start.model_copy(update={"tty": terminal}).program(stdin=True)
