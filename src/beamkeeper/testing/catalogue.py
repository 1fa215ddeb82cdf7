"""Versions to be registered, and a catalogue's database with two experiments, for tests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from beamkeeper.db import CatalogTransaction, Database, schema
from beamkeeper.db.base import new_uid
from beamkeeper.domain.experiments import Experiment, NewExperiment, NewStation
from beamkeeper.domain.files import NewFile, ReadFrom, Source, SourceIdentity
from beamkeeper.domain.names import Algorithm, Checksum, to_b64
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import EXPERIMENT_ROLES, STATION_ROLES, Caller, Grant, Publicity, Role
from beamkeeper.testing.beamline import Clock

TAKEN = datetime(2026, 3, 1, 11, tzinfo=UTC)
EXPERIMENT = UUID("01900000-0000-7000-8000-000000000001")
AREA = UUID("01900000-0000-7000-8000-00000000000a")


def new_file(path: bytes | str, *, content: bytes = b"frame", number: int = 1, **changes: Any) -> NewFile:
    """Return a version as the station registers it."""
    raw = path.encode() if isinstance(path, str) else bytes(path)
    checksum = Checksum(algorithm=Algorithm.SHA256, value=hashlib.sha256(content).hexdigest())
    values: dict[str, Any] = {
        "path_b64": to_b64(raw),
        "experiment_uid": EXPERIMENT,
        "version_uid": new_uid(),
        "number": number,
        "size": len(content),
        "checksums": [checksum],
        "source": Source(agent="det1", path_b64=to_b64(b"disk/" + raw)),
        "identity": SourceIdentity(dev=2**64 - 1, ino=2**64 - 2, size=len(content), mtime_ns=1, ctime_ns=number),
        "storage_area_uid": AREA,
        "read_from": ReadFrom.DEVICE,
        "modified_at": TAKEN,
        "finished_at": TAKEN,
        "transferred_at": TAKEN,
        "verified_at": TAKEN,
    }
    return NewFile(**{**values, **changes})


class Catalogue:
    """A catalogue with a station and experiments, made by name when they are first asked for."""

    def __init__(self, url: str) -> None:
        self.clock = Clock()
        self.database: Database[CatalogTransaction] = Database(url, CatalogTransaction, clock=self.clock)
        schema.create(self.database, Service.CATALOG)
        with self.database.write() as tx:
            self.area = tx.storage.add(NewStorageArea(name="hot", station_url="file:///mnt/hot", path="/mnt/hot"))
            self.station = tx.experiments.add_station(NewStation(name="8ID", storage_area_uid=self.area.uid))
        self._experiments: dict[str, Experiment] = {}

    def experiment(self, name: str = "coffee", *, publicity: Publicity = Publicity.PROPRIETARY) -> Experiment:
        """Return an experiment, making it where it is new."""
        if name not in self._experiments:
            new = NewExperiment(name=name, station=self.station.name, publicity=publicity)
            with self.database.write() as tx:
                self._experiments[name] = tx.experiments.add(
                    new, station=self.station, cycle="2026-1", area_uid=self.area.uid, directory=f"2026-1/{name}"
                )
        return self._experiments[name]

    def caller(self, role: Role, experiment: str = "coffee", *, station_uid: UUID | None = None) -> Caller:
        """Return somebody with this role, on the experiment or station where it is of one."""
        uid = new_uid()
        grant = Grant(
            user_uid=uid,
            role=role,
            station_uid=(station_uid or self.station.uid) if role in STATION_ROLES else None,
            experiment_uid=self.experiment(experiment).uid if role in EXPERIMENT_ROLES else None,
        )
        return Caller(str(role), user_uid=uid, grants=(grant,))

    def service(self, station_uid: UUID | None = None) -> Caller:
        """Return the services of the station, or of another."""
        return Caller("service of a station", is_service=True, station_uid=station_uid or self.station.uid)

    def close(self) -> None:
        """Close the database."""
        self.database.close()
