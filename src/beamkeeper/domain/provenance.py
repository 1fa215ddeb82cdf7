"""Provenance: which files a file was made from, by which job and stage, down to the raw frames."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from beamkeeper.domain.names import Input, Model, Title, Uid, UtcTime, WithPath

SOURCES_LIMIT = 1000
"""The most sources in one call."""

MAX_NODES = 1000
"""The most files in one answer."""

JobName = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00]*$")]


class Towards(StrEnum):
    """Which way to look from a file."""

    SOURCES = "sources"
    RESULTS = "results"


class SourceRef(Input):
    """A file that another was made from."""

    file_uid: Uid
    version: int | None = Field(default=None, ge=1, description="Which version; without it, the newest now.")


class Making(Input):
    """How a job made a file, from the job's own record."""

    job_uid: Uid
    number: int = Field(description="Of the child process, counted through the job.")
    workflow: Title
    workflow_owner: Title
    workflow_version: int
    command: Annotated[str, StringConstraints(max_length=20_000)]
    environment: Annotated[dict[str, str], Field(max_length=1000)] = Field(
        default_factory=dict, description="Of its variables those that the station or the workflow sets."
    )
    host: Title
    account: Title


class NewDerivation(Input):
    """From which files a file was made; saying the same again changes nothing."""

    version: int | None = Field(default=None, ge=1, description="Which version of it; without it, the newest now.")
    sources: tuple[SourceRef, ...] = Field(min_length=1, max_length=SOURCES_LIMIT)
    job: JobName = Field(default="", description="What made it: a job, or a program.")
    stage: JobName = ""
    making: Making | None = Field(default=None, description="For services: how a job made it.")


class Recorded(Model):
    """How many links are new."""

    links: int


class ProvenanceFile(Model):
    """A file of a chain; of one that the caller may not see, it is told only that it is there."""

    number: int = Field(description="By which links name it, in this answer only.")
    is_hidden: bool = False
    file: ProvenanceVersion | None = None


class ProvenanceVersion(Model, WithPath):
    """A version of a file, as far as a chain shows it."""

    file_uid: Uid
    experiment_uid: Uid
    version: int
    is_newest: bool


class DerivedFrom(Model):
    """A link: one file was made from another."""

    derived: int
    source: int
    job: str
    stage: str
    making: Making | None = Field(default=None, description="How a job made it.")
    recorded_at: UtcTime
    recorded_by: Title


class Provenance(Model):
    """What a file was made from, or what was made from it: files by number, the first is the one asked for."""

    towards: Towards
    files: tuple[ProvenanceFile, ...]
    links: tuple[DerivedFrom, ...]
    is_cut: bool = Field(default=False, description="There is more than one answer tells.")

    @property
    def is_stale(self) -> bool:
        """Whether it was made from a version of a file that has a newer one by now, as far as the caller may see."""
        made_from = self.files[1:] if self.towards is Towards.SOURCES else ()
        return any(one.file is not None and not one.file.is_newest for one in made_from)


ProvenanceFile.model_rebuild()
