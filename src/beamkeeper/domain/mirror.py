"""The small copy of identities that every service holds, so that it can decide on its own."""

from __future__ import annotations

from pydantic import Field

from beamkeeper.domain.experiments import Experiment, ExperimentType, Station
from beamkeeper.domain.names import Model, Uid, UtcTime, WireInt
from beamkeeper.domain.storage import StorageArea
from beamkeeper.domain.users import Grant, SessionRecord, User


class GrantRecord(Grant):
    """A grant as the mirror carries it: taken away, it stays as a tombstone."""

    uid: Uid
    is_revoked: bool = False
    source: str = Field(default="", description="Who gave it: empty for a person, else what a sync follows.")


class MirrorState(Model):
    """How far a mirror has come, and when it last heard from the storage service."""

    epoch: str
    number: WireInt
    heard_at: UtcTime


class Mirror(Model):
    """What changed in the identities since a number; applied in one transaction, it brings a mirror to `number`."""

    epoch: str
    number: WireInt
    is_whole: bool = False
    users: tuple[User, ...] = ()
    grants: tuple[GrantRecord, ...] = ()
    sessions: tuple[SessionRecord, ...] = ()
    stations: tuple[Station, ...] = ()
    storage_areas: tuple[StorageArea, ...] = ()
    experiment_types: tuple[ExperimentType, ...] = ()
    experiments: tuple[Experiment, ...] = ()

    @property
    def is_news(self) -> bool:
        """Whether it carries anything."""
        people = (self.users, self.grants, self.sessions)
        places = (self.stations, self.storage_areas, self.experiment_types, self.experiments)
        return self.is_whole or any((*people, *places))
