"""The small copy of identities that every service holds, so that it can decide on its own."""

from __future__ import annotations

from collections.abc import Sequence

from beamkeeper.domain.experiments import Experiment, Station
from beamkeeper.domain.names import Model, Uid, WireInt
from beamkeeper.domain.storage import StorageArea
from beamkeeper.domain.users import Grant, SessionRecord, User


class GrantRecord(Grant):
    """A grant as the mirror carries it: taken away, it stays as a tombstone."""

    uid: Uid
    is_revoked: bool = False


class Mirror(Model):
    """What changed in the identities since a number; applied in one transaction, it brings a mirror to `number`."""

    epoch: str
    number: WireInt
    is_whole: bool = False
    users: Sequence[User] = ()
    grants: Sequence[GrantRecord] = ()
    sessions: Sequence[SessionRecord] = ()
    stations: Sequence[Station] = ()
    storage_areas: Sequence[StorageArea] = ()
    experiments: Sequence[Experiment] = ()
