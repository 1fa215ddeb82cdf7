"""Which workflow the files of a DAQ or an upload are given to, and how many at a time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from beamkeeper.domain.names import Input
from beamkeeper.domain.workflows.model import Owner, WorkflowName

MOST_PER_JOB = 1000
"""Of a number of files that a plan names; a run, a dataset and the end give a job all that they have."""

Only = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class JobPlan(Input):
    """A workflow that runs on files as they arrive."""

    workflow: WorkflowName
    owner: Owner | None = Field(default=None, description="Whose it is, where several have one of this name.")
    arguments: Annotated[dict[str, JsonValue], Field(max_length=200)] = Field(default_factory=dict)
    only: Annotated[tuple[Only, ...], Field(max_length=32)] = Field(
        default=(), description="Only for files whose path below the directory, or name, one of these globs matches."
    )
    per: Literal["file", "run", "dataset", "end"] | Annotated[int, Field(ge=1, le=MOST_PER_JOB)] = Field(
        default="file",
        description="One job for each file, for so many files, for each run once it has stopped, for each dataset once "
        "it is frozen, or for all files at the end.",
    )
    at: Literal["available", "ready"] = Field(
        default="available", description="On stored files; or at ready on those at the source, once they are finished."
    )
    again: bool = Field(
        default=False, description="Once more on a new version of a file; else what was made of the old one is stale."
    )

    @property
    def count(self) -> int | None:
        """How many files make a job; None where something else does."""
        if isinstance(self.per, int):
            return self.per
        return 1 if self.per == "file" else None
