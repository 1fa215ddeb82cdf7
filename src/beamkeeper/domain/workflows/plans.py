"""Which workflow the files of a DAQ or an upload are given to, and how many at a time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from beamkeeper.domain.names import Input
from beamkeeper.domain.workflows.model import Owner, WorkflowName

MOST_PER_JOB = 1000
Only = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class JobPlan(Input):
    """A workflow that runs on files as they arrive."""

    workflow: WorkflowName
    owner: Owner | None = Field(default=None, description="Whose it is, where several have one of this name.")
    arguments: Annotated[dict[str, JsonValue], Field(max_length=200)] = Field(default_factory=dict)
    only: Annotated[tuple[Only, ...], Field(max_length=32)] = Field(
        default=(), description="Only for files whose path below the directory, or name, one of these globs matches."
    )
    per: Literal["file", "end"] | Annotated[int, Field(ge=1, le=MOST_PER_JOB)] = Field(
        default="file", description="One job for each file, for so many files, or for all of them at the end."
    )
    at: Literal["available", "ready"] = Field(
        default="available", description="On stored files; or at ready on those at the source, once they are finished."
    )

    @property
    def count(self) -> int | None:
        """How many files make a job; None where only the end does."""
        return {"file": 1, "end": None}[self.per] if isinstance(self.per, str) else self.per
