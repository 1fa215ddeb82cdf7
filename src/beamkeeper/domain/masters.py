"""Master files: files that hold links to others, and are of use only when those are there."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.domain.names import Input, Model, Uid, UtcTime, WithPath

EXTERNAL_FILES, EXTERNAL_FILES_UNREAD = "external_files", "external_files_unread"
"""The keys of a file's metadata with the names of the files that it links to, and the number of those not named."""

MISSING_TOLD = 200
"""So many of the missing files are named; of more, only their number is told."""


class MasterFile(Model, WithPath):
    """A master file with what it links to; `path` is below the experiment."""

    acquisition_uid: Uid
    is_complete: bool = Field(description="Every file that it links to is in the catalogue.")
    linked: int = Field(description="To how many files it links.")
    missing: int = Field(description="How many of them are not in the catalogue.")
    first_missing: tuple[str, ...] = Field(default=(), description="The first of them, as they are shown.")
    checked_at: UtcTime | None = None


class MasterQuery(Input):
    """Which master files of a DAQ or upload are wanted, in the order of their paths."""

    is_complete: bool | None = Field(default=None, description="Only those that are, or only those that are not.")
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class MasterPage(Model):
    """Some master files, and the cursor that continues the list."""

    items: tuple[MasterFile, ...]
    next: str | None = None


class MasterCount(Model):
    """How many master files have all that they link to, and how many do not."""

    complete: int = 0
    incomplete: int = 0
