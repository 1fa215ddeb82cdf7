"""Stations whose catalogues a site's follows: each a database with its own mirror, and the loop that sends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from beamkeeper.client import Client
from beamkeeper.core import files as core_files
from beamkeeper.core import replication as core_replication
from beamkeeper.core import users as core_users
from beamkeeper.db import CatalogTransaction, Database, upgrade
from beamkeeper.domain.arriving import arriving
from beamkeeper.domain.experiments import Experiment, NewExperiment, NewStation, Station
from beamkeeper.domain.files import NewFile, RegisteredAs
from beamkeeper.domain.replication import FileDocument, Kind
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Caller
from beamkeeper.engine.replicate import ReplicateLoop
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.services import Running


def documents(database: Database[CatalogTransaction], station_uid: UUID) -> dict[UUID, FileDocument]:
    """Return everything that a catalogue holds of a station's files."""
    found: dict[UUID, FileDocument] = {}
    after: UUID | None = None
    while True:
        with database.read() as tx:
            read = tx.documents.listed(station_uid, after=after, limit=500)
        found.update((document.uid, document) for document in read.documents)
        if read.is_all or read.last is None:
            return found
        after = read.last[1]


def records(database: Database[CatalogTransaction], station_uid: UUID) -> dict[Kind, dict[UUID, Any]]:
    """Return everything that a catalogue holds of a station, files and all else, by kind and uid."""
    with database.read() as tx:
        return {
            kind: {
                each.uid: each for each in carried.copies(tx).listed(station_uid, after=None, limit=10_000).documents
            }
            for kind, carried in core_replication.KINDS.items()
        }


@dataclass
class Sender:
    """One station's catalogue, and what carries it to the site's."""

    site: Running
    station: Station
    key: str = field(repr=False)
    database: Database[CatalogTransaction]
    said: list[str] = field(default_factory=list)
    loop: ReplicateLoop = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    @classmethod
    def made(cls, site: Running, name: str, url: str, stack: ExitStack) -> Sender:
        """Make a station of the site with a catalogue of its own."""
        station = site.client.stations.create(NewStation(name=name, layout="{station}/{experiment}"))
        key = site.client.stations.join(site.client.stations.make_token(name).token).key
        database: Database[CatalogTransaction] = Database(url, CatalogTransaction)
        stack.callback(database.close)
        upgrade.upgrade(url, Service.CATALOG)
        database.home = name
        sender = cls(site, station, key, database)
        sender.mirror()
        return sender

    def restart(self) -> None:
        """Begin anew, as a process does that was killed."""
        self.loop = ReplicateLoop(self.database, self.client(), report=self.said.append)

    def client(self) -> Client:
        """Return a client under the station's key, for the site's catalogue."""
        return self.site.as_(self.key, urls={Service.CATALOG: self.site.urls[Service.CATALOG]})

    @property
    def service(self) -> Caller:
        """The station's services as a caller."""
        return Caller(f"station {self.station.name}", is_service=True, station_uid=self.station.uid)

    def mirror(self) -> None:
        """Bring the station's mirror up to date."""
        with self.site.database.read() as tx:
            whole = core_users.mirror_after(tx, Caller("testing", is_service=True), number=0, epoch=None)
        with self.database.write() as tx:
            core_users.apply_mirror(tx, whole)

    def experiment(self, name: str = "coffee") -> Experiment:
        """Make an experiment of this station."""
        made = self.site.client.experiments.create(NewExperiment(name=name, station=self.station.name))
        self.mirror()
        return made

    def register(self, experiment: Experiment, *files: NewFile | str, **changes: Any) -> Sequence[UUID]:
        """Register files, and return their uids."""
        new = [file if isinstance(file, NewFile) else new_file(file, **changes) for file in files]
        uids: list[UUID] = []
        for start in range(0, len(new), 1000):
            part = [file.model_copy(update={"experiment_uid": experiment.uid}) for file in new[start : start + 1000]]
            with self.database.write() as tx:
                answers = core_files.register(tx, self.service, arriving(part)).files
            assert {answer.result for answer in answers} == {RegisteredAs.CREATED}
            uids += [answer.file_uid for answer in answers if answer.file_uid is not None]
        return uids

    def send(self) -> None:
        """Send until nothing is left."""
        while self.loop.step():
            pass

    def records(self) -> dict[Kind, dict[UUID, Any]]:
        """Return everything that this station's catalogue holds."""
        return records(self.database, self.station.uid)

    def copied_records(self) -> dict[Kind, dict[UUID, Any]]:
        """Return everything that the site's catalogue holds of this station."""
        return records(self.site.contexts[Service.CATALOG].database, self.station.uid)

    def documents(self) -> dict[UUID, FileDocument]:
        """Return everything that this station's catalogue holds of its files."""
        return documents(self.database, self.station.uid)

    def copies(self) -> dict[UUID, FileDocument]:
        """Return everything that the site's catalogue holds of this station's files."""
        return documents(self.site.contexts[Service.CATALOG].database, self.station.uid)
