"""Datasets: named sets of files of an experiment, by list or by saved query, open or frozen."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from beamkeeper.domain.errors import ConflictError
from beamkeeper.domain.files import REGISTER_LIMIT, File, Version
from beamkeeper.domain.names import Input, Metadata, Model, PlainName, Title, Uid, UtcTime

MAX_QUERY = 8192
QueryText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY, pattern=r"^[^\x00]*$")]


class DatasetState(StrEnum):
    """Whether files may still come and go."""

    OPEN = "open"
    FROZEN = "frozen"


class NewDataset(Input):
    """A dataset to be made; its name is unique in the experiment, so that asking again gives the same one."""

    experiment_uid: Uid
    name: PlainName
    title: Title = ""
    query: QueryText | None = Field(
        default=None, description="Its files are what this query finds, whenever it is asked; without it, a list."
    )
    metadata: Metadata = Field(default_factory=dict)


class Dataset(Model):
    """A named set of files of one experiment, with metadata of its own."""

    uid: Uid
    experiment_uid: Uid
    name: PlainName
    title: Title = ""
    owner: Title
    state: DatasetState
    query: str | None = None
    metadata: Metadata
    created_at: UtcTime
    frozen_at: UtcTime | None = None

    def check_open(self) -> None:
        """Refuse to change what is frozen."""
        if self.state is DatasetState.FROZEN:
            raise ConflictError(
                f'dataset "{self.name}" is frozen, and its files are fixed: make another dataset', uid=str(self.uid)
            )

    def check_list(self) -> None:
        """Refuse to put single files into a saved query."""
        self.check_open()
        if self.query is not None:
            raise ConflictError(
                f'the files of dataset "{self.name}" are what its query finds: freeze it, or make one without a query',
                uid=str(self.uid),
            )


class DatasetPage(Model):
    """Some datasets, newest first, and the cursor that continues the list."""

    items: tuple[Dataset, ...]
    next: str | None = None


class DatasetQuery(Input):
    """Which datasets are wanted; conditions are joined by AND."""

    experiment_uid: Uid | None = None
    name: PlainName | None = None
    file_uid: Uid | None = Field(default=None, description="Those that list this file or hold it frozen.")
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class FileUids(Input):
    """Some files, by their uids."""

    file_uids: tuple[Uid, ...] = Field(min_length=1, max_length=REGISTER_LIMIT)


class FilesAsked(FileUids):
    """Some files of an experiment, of which is asked where they belong."""

    experiment_uid: Uid


class Belongs(Model):
    """A file, and what it belongs to: of several datasets or runs the newest."""

    file_uid: Uid
    uid: Uid


class BelongingFiles(Model):
    """Where files belong; those that belong nowhere are left out."""

    items: tuple[Belongs, ...]


class Changed(Model):
    """How many files came or went; those that were there, or were not, do not count."""

    files: int


class Member(Model):
    """A file of a dataset or run, and the version that belongs to it: the newest, or the one that is frozen."""

    file: File
    version: Version


class MemberPage(Model):
    """Some files, and the cursor that continues the list."""

    items: tuple[Member, ...]
    next: str | None = None


class MemberQuery(Input):
    """Which part of a list of files is wanted."""

    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)
