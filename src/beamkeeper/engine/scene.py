"""What a batch belongs to, and the paths that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, unquote, urlsplit
from uuid import UUID

from beamkeeper.core.destinations import uids
from beamkeeper.db import AcquisitionTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.job_requests import Wanted
from beamkeeper.db.journal import Claimed
from beamkeeper.domain import globs
from beamkeeper.domain.acquisition import Acquisition
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileKind, Source
from beamkeeper.domain.names import RelPath, path_fields
from beamkeeper.domain.storage import STAGING, StorageArea

PUT_AGENT = "put"
"""The agent that files have which came over HTTP."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a batch belongs to."""

    acquisition: Acquisition
    experiment: Experiment
    area: StorageArea
    also: tuple[UUID, ...] = ()
    """The storage areas that are to have a copy too."""

    @classmethod
    def of(cls, tx: AcquisitionTransaction, acquisition_uid: UUID) -> Self:
        """Return the scene of an acquisition."""
        acquisition = tx.acquisitions.get(acquisition_uid)
        experiment = tx.experiments.get(acquisition.experiment_uid)
        also = uids(tx, acquisition.also)
        return cls(acquisition, experiment, tx.storage.get(experiment.storage_area_uid), also)

    def path(self, file: Claimed) -> RelPath:
        """Return a file's path below the experiment."""
        return self.path_of(file.path)

    def path_of(self, path: bytes) -> RelPath:
        """Return the path below the experiment of what has a path below the directory that is watched."""
        parts = [str(self.acquisition.tree).encode(), self.acquisition.destination.encode(), path]
        return RelPath(b"/".join(part for part in parts if part))

    @property
    def local_root(self) -> str:
        """Where the experiment's directory is on this host, or on those that mount its storage area."""
        return f"{unquote(urlsplit(self.area.station_url).path).rstrip('/')}/{self.experiment.directory}"

    def source(self, file: Claimed) -> bytes:
        """Return the absolute path of a file at its source."""
        return self.source_of(file.path)

    def source_of(self, path: bytes) -> bytes:
        """Return the absolute path of what has a path below the directory that is watched."""
        return b"/" + self.acquisition.relpath + b"/" + path

    def wanted(self, files: Iterable[Claimed]) -> list[Wanted]:
        """Return for which of these files a job is wanted: those that are whole, and meant by a plan."""
        plan = self.acquisition.workflow
        if plan is None:
            return []
        is_meant = globs.matcher(plan.only or ("*",))
        whole = (f for f in files if f.kind is FileKind.FILE and not f.is_snapshot and is_meant(f.path))
        return [
            Wanted(
                file.version_uid,
                bytes(self.path(file)),
                self.source(file)[1:],
                is_first=plan.again or file.number == 1,
                job_uid=new_uid() if plan.count == 1 else None,
            )
            for file in whole
        ]

    def staged(self, file: Claimed) -> RelPath | None:
        """Return a file's name in its staging directory; None where that is its path.

        What no kernel of ours takes gets names that every protocol can say: GridFTP none with a line feed, S3 none that
        is not UTF-8, and both none of 4 kB.
        """
        return self.staged_as(file.version_uid)

    def staged_as(self, version: UUID) -> RelPath | None:
        """Return the name of a version in its staging directory; None where that is its path."""
        return None if self.area.is_mounted else RelPath(str(version).encode())

    def origin(self, file: Claimed) -> Source:
        """Return where a file comes from, as the catalogue knows it.

        What was put over HTTP lay in a spool that no two puts share: its origin is the path that it was put at.
        """
        if self.acquisition.is_put:
            return Source.model_construct(agent=PUT_AGENT, **path_fields(self.path(file)))
        return Source.model_construct(agent=self.acquisition.agent, **path_fields(self.source(file)[1:]))

    def staging(self, batch: UUID) -> str:
        """Return the URL of a batch's staging directory, as the station reaches it."""
        return f"{self.area.station_url.rstrip('/')}/{quote(self.experiment.directory)}/{STAGING}/{batch}"
