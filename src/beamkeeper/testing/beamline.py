"""A small beamline in the acquisition service's database: station, storage area, experiments, and people with roles."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from beamkeeper.db import AcquisitionTransaction, Database, schema
from beamkeeper.db.acquisition import Options
from beamkeeper.db.base import new_uid
from beamkeeper.domain.acquisition import Finished, Kind, NewDaq, NewPut, NewUpload
from beamkeeper.domain.experiments import Experiment, NewExperiment, NewStation, Station, Tree
from beamkeeper.domain.names import Uid, path_fields
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import EXPERIMENT_ROLES, STATION_ROLES, Caller, Grant, Role

STATION = "8ID"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def tick(self, seconds: float = 1.0) -> datetime:
        """Move on and return the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now


class Beamline:
    """A station with one storage area; experiments are made by name when they are first asked for."""

    def __init__(self, url: str, storage: Path) -> None:
        self.clock = Clock()
        self.storage = storage
        self.database: Database[AcquisitionTransaction] = Database(url, AcquisitionTransaction, clock=self.clock)
        schema.create(self.database, Service.ACQUISITION)
        with self.database.write() as tx:
            self.area = tx.storage.add(NewStorageArea(name="hot", station_url=storage.as_uri(), path=str(storage)))
            self.station: Station = tx.experiments.add_station(NewStation(name=STATION, storage_area_uid=self.area.uid))
        self._experiments: dict[str, Experiment] = {}

    def experiment(self, name: str = "coffee") -> Experiment:
        """Return an experiment, making it where it is new."""
        if name not in self._experiments:
            new = NewExperiment(name=name, station=STATION)
            with self.database.write() as tx:
                self._experiments[name] = tx.experiments.add(
                    new, station=self.station, cycle="2026-1", area_uid=self.area.uid, directory=f"2026-1/{name}"
                )
        return self._experiments[name]

    def caller(self, role: Role, experiment: str = "coffee", *, username: str | None = None) -> Caller:
        """Return somebody with this role, on the experiment or station where it is of one."""
        uid = new_uid()
        grant = Grant(
            user_uid=uid,
            role=role,
            station_uid=self.station.uid if role in STATION_ROLES else None,
            experiment_uid=self.experiment(experiment).uid if role in EXPERIMENT_ROLES else None,
        )
        return Caller(username or str(role), user_uid=uid, grants=(grant,))

    def daq(self, directory: Path | bytes, experiment: str = "coffee", **options: Any) -> NewDaq:
        """Return a request to watch a directory."""
        return NewDaq(experiment_uid=self.experiment(experiment).uid, **_at(directory), **options)

    def upload(self, directory: Path | bytes, experiment: str = "coffee", **options: Any) -> NewUpload:
        """Return a request to upload a directory or file."""
        return NewUpload(experiment_uid=self.experiment(experiment).uid, **_at(directory), **options)

    def put(self, experiment: str = "coffee", **options: Any) -> NewPut:
        """Return a request to send files."""
        return NewPut(experiment_uid=self.experiment(experiment).uid, **options)

    def close(self) -> None:
        """Close the database."""
        self.database.close()


def options(path: bytes = b"det/out", *, kind: Kind = Kind.DAQ, uid: Uid | None = None, **changed: Any) -> Options:
    """Return what a new DAQ is to be, as the verbs decide it."""
    plain: dict[str, Any] = {
        "agent": "det1",
        "destination": "",
        "tree": Tree.DATA,
        "include": (),
        "exclude": (),
        "with_hidden": True,
        "with_existing": True,
        "resend": False,
        "finished": Finished.EVIDENCE,
        "quiet_s": None,
        "metadata": {},
        "processors": None,
        "skip_processors": (),
        "max_run_time_s": None,
        "is_put": False,
        "started_by": "ada",
    }
    return Options(uid=uid, kind=kind, path=path, **{**plain, **changed})


def _at(directory: Path | bytes) -> dict[str, Any]:
    raw = directory if isinstance(directory, bytes) else str(directory).encode()
    return {"path_b64": path_fields(raw.lstrip(b"/"))["path_b64"]}


def names(items: Sequence[Any]) -> list[Uid]:
    """Return the uids of some models, in their order."""
    return [item.uid for item in items]
