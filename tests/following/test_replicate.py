"""The site's catalogue follows the stations': whatever happens on the way, in the end it holds what they hold."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.core import files as core_files
from beamkeeper.core import ledger as core_ledger
from beamkeeper.core import replication as core
from beamkeeper.core import status as core_status
from beamkeeper.db import CatalogTransaction, Database, backup
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import ConflictError, NotPermittedError
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.files import FileDeletion, FileQuery, ReadFrom, ReplicaState
from beamkeeper.domain.ledger import NewVerification, NewVerifications
from beamkeeper.domain.names import to_b64
from beamkeeper.domain.replication import FileDocument, Kind, NewChanges, Position
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Caller, Grant, Role
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.following import Sender
from beamkeeper.testing.services import Running
from following.sites import ADMINISTRATOR, BOTH, people


def verified(sender: Sender, uid: UUID, *, is_match: bool) -> None:
    """Record that the replicas of a file were read."""
    with sender.database.write() as tx:
        replicas = tx.files.history(uid).replicas
        rows = tuple(
            NewVerification(
                uid=new_uid(),
                replica_uid=replica.uid,
                verified_at=tx.now,
                is_match=is_match,
                read_from=ReadFrom.OTHER_HOST,
                message="" if is_match else "other bytes",
            )
            for replica in replicas
        )
        core_ledger.record(tx, sender.service, NewVerifications(items=rows))


def hide(sender: Sender, glob: str, experiment_uid: UUID) -> None:
    query = FileQuery(experiment_uid=experiment_uid, glob=glob)
    with sender.database.write() as tx:
        core_files.delete(
            tx, ADMINISTRATOR, FileDeletion(query=query, expected_count=tx.files.count(query, is_deleted=False).files)
        )


@BOTH
def test_everything_of_a_file_follows(station: Sender) -> None:
    experiment = station.experiment()
    odd = new_file(b"data/\xff\n", metadata={"energy": {"value": 7.1, "unit": "keV"}})
    first, second, third = station.register(experiment, odd, "data/b", "data/c")
    station.send()
    assert station.copies() == station.documents()
    station.register(experiment, new_file("data/b", content=b"other", number=2, chunks=("ab" * 32,), is_snapshot=True))
    with station.database.write() as tx:
        core_files.set_metadata(tx, ADMINISTRATOR, first, patch={"sample": "Ag", "energy": {"value": 8}})
    verified(station, second, is_match=True)
    verified(station, third, is_match=False)
    hide(station, "data/c", experiment.uid)
    station.send()
    copies = station.copies()
    assert copies == station.documents()
    assert [version.number for version in copies[second].versions] == [1, 2]
    assert copies[first].annotations == {"sample": "Ag", "energy": {"value": 8}}
    assert [(change.changed_by, change.patch) for change in copies[first].history] == [
        ("ada", {"sample": "Ag", "energy": {"value": 8}})
    ]
    assert copies[third].deleted_by == "ada"
    assert copies[third].versions[0].replicas[0].state is ReplicaState.SUSPECT
    assert len(copies[third].versions[0].replicas[0].ledger) == 2
    with station.database.write() as tx:
        core_files.restore(tx, ADMINISTRATOR, FileQuery(experiment_uid=experiment.uid))
    station.send()
    assert station.copies() == station.documents()
    assert station.copies()[third].deleted_at is None


@BOTH
def test_two_stations_are_found_at_the_site_within_ones_rights(site: Running, stations: list[Sender]) -> None:
    experiments = [sender.experiment("tea") for sender in stations]
    for sender, experiment in zip(stations, experiments, strict=True):
        sender.register(experiment, *(f"data/{sender.station.name}/{i:04}" for i in range(core.BATCH + 20)))
        sender.register(experiment, "data/more")
    for _ in range(3):
        for sender in stations:
            sender.loop.step()
    for sender in stations:
        sender.send()
    for sender in stations:
        assert sender.copies() == sender.documents()
        assert len(sender.copies()) == core.BATCH + 21
    found = [file.path for file in people(site).files.find(FileQuery(glob="data/*/0007"))]
    assert {f"data/{sender.station.name}/0007" for sender in stations} <= set(found)
    with site.contexts[Service.CATALOG].database.read() as tx:
        member = Caller(
            "bob",
            user_uid=new_uid(),
            grants=(Grant(user_uid=new_uid(), role=Role.USER, experiment_uid=experiments[0].uid),),
        )
        page = core_files.find(tx, member, FileQuery(glob="data/*/0007"))
    assert [file.path for file in page.items] == [f"data/{stations[0].station.name}/0007"]


def test_a_batch_that_is_sent_again_or_by_two_changes_nothing(station: Sender) -> None:
    station.register(station.experiment(), *(f"data/{i}" for i in range(5)))
    with station.database.read() as tx:
        changes = core.next_changes(tx, Kind.FILES, None)
    assert changes is not None
    client = station.client()
    taken = client.replication.send(changes)
    with pytest.raises(ConflictError, match="another position"):
        client.replication.send(changes)
    assert client.replication.positions().positions == {Kind.FILES: taken.position}
    station.send()
    assert station.copies() == station.documents()


def test_a_process_that_dies_with_a_batch_on_its_way_goes_on_after_it(station: Sender) -> None:
    experiment = station.experiment()
    station.register(experiment, "data/a")
    station.send()
    station.register(experiment, "data/b")
    with station.database.read() as tx:
        changes = core.next_changes(tx, Kind.FILES, station.client().replication.positions().positions[Kind.FILES])
    assert changes is not None
    station.client().replication.send(changes)  # taken, and nobody here has heard of it
    station.register(experiment, "data/c")
    with pytest.raises(ConflictError):
        station.loop.step()
    station.send()
    assert station.copies() == station.documents()
    station.restart()
    station.send()
    assert station.copies() == station.documents()


@BOTH
def test_a_station_that_is_restored_is_gone_through_as_a_whole(station: Sender, tmp_path: Path) -> None:
    experiment = station.experiment()
    kept = station.register(experiment, *(f"data/kept/{i}" for i in range(core.BATCH + 3)))
    station.send()
    backup.save(station.database, Service.CATALOG, tmp_path / "saved")
    station.register(experiment, new_file("data/kept/1", content=b"lost", number=2), "data/lost", "data/again")
    station.send()
    assert len(station.copies()) == len(kept) + 2
    url = f"sqlite:///{tmp_path / 'restored'}.db"
    backup.restore(url, Service.CATALOG, tmp_path / "saved")
    with closing(Database(url, CatalogTransaction)) as restored:
        restored.home, station.database = station.station.name, restored
        again = new_file("data/kept/1", content=b"found again", number=2)
        station.register(experiment, again, new_file("data/again", content=b"adopted"))
        station.restart()
        station.send()
        copies = station.copies()
        hidden = [copies.pop(uid) for uid in copies.keys() - station.documents().keys()]
        assert copies == station.documents()
        assert [(file.path, file.deleted_by) for file in hidden] == [
            ("data/lost", f"the catalogue of {station.station.name} does not have it")
        ]
        status = people(station.site).status(Service.CATALOG)
        mine = [each for each in status.followers if (each.station, each.kind) == (station.station.name, Kind.FILES)]
        assert [(each.unlisted, each.refused, each.is_listing) for each in mine] == [(1, 0, False)]
        station.register(experiment, "data/after")
        station.send()
        assert station.documents().items() <= station.copies().items()


def test_a_site_that_is_restored_is_told_again_what_it_lost(station: Sender) -> None:
    experiment = station.experiment()
    station.register(experiment, "data/a")
    station.send()
    held = station.client().replication.positions().positions[Kind.FILES]
    station.register(experiment, "data/b")
    station.send()
    with station.site.contexts[Service.CATALOG].database.write() as tx:  # as an older backup has it
        tx.replication.move(station.station.uid, Kind.FILES, held, waiting=0, refused=0, unlisted=0, message="")
    station.register(experiment, "data/c")
    with pytest.raises(ConflictError):
        station.loop.step()
    station.restart()
    station.send()
    assert station.copies() == station.documents()


def test_changes_that_are_not_kept_any_more_lead_to_a_listing(station: Sender) -> None:
    experiment = station.experiment()
    station.register(experiment, "data/a")
    station.send()
    with station.database.write() as tx:
        core.forget(tx)
    station.register(experiment, "data/b")
    with station.database.write() as tx:
        core.forget(tx)
    station.send()
    assert station.copies() == station.documents()
    assert len(station.copies()) == 2


def test_large_metadata_goes_in_small_batches(station: Sender) -> None:
    heavy = {"note": "x" * 900_000}
    station.register(station.experiment(), *(new_file(f"data/{i}", metadata=heavy) for i in range(25)))
    with station.database.read() as tx:
        changes = core.next_changes(tx, Kind.FILES, None)
    assert changes is not None
    assert len(changes.documents) < 12
    station.send()
    assert station.copies() == station.documents()


def test_the_copy_is_changed_where_it_is_owned_and_nowhere_else(site: Running, station: Sender) -> None:
    experiment = station.experiment("cocoa")
    (uid,) = station.register(experiment, "data/a")
    station.send()
    query = FileQuery(experiment_uid=experiment.uid)
    for change in (
        lambda: people(site).files.set_metadata(uid, {"a": 1}),
        lambda: people(site).files.delete(query, 1),
        lambda: people(site).files.restore(query),
    ):
        with pytest.raises(ConflictError, match=f"change it there, with --station {station.station.name}"):
            change()
    service = station.client()
    with pytest.raises(ConflictError, match="only follows it"):
        service.files.register([new_file("data/b").model_copy(update={"experiment_uid": experiment.uid})])
    own = site.client.experiments.create(NewExperiment(name=experiment.name, station=site.settings.station.name))
    at_home = site.as_(site.bootstrap.service_key, station=site.settings.station.name)
    at_home.files.register([new_file("data/own").model_copy(update={"experiment_uid": own.uid})])
    (mine,) = people(site).files.find(FileQuery(experiment_uid=own.uid))
    assert people(site).files.set_metadata(mine.uid, {"a": 1}).metadata == {"a": 1}


def document(sender: Sender, experiment_uid: UUID, path: str = "data/x") -> FileDocument:
    """Return a document of nobody's, made of one that there is."""
    any_ = next(iter(sender.documents().values()))
    version = any_.versions[0]
    replica = version.replicas[0].model_copy(update={"uid": new_uid(), "ledger": ()})
    return any_.model_copy(
        update={
            "uid": new_uid(),
            "experiment_uid": experiment_uid,
            "path": path,
            "path_b64": to_b64(path.encode()),
            "versions": (version.model_copy(update={"uid": new_uid(), "replicas": (replica,)}),),
        }
    )


def sent(sender: Sender, *documents: FileDocument) -> list[str]:
    """Send documents under a station's key, and return why they are refused."""
    client = sender.client()
    since = client.replication.positions().positions.get(Kind.FILES)
    upto = since or Position(epoch="e", number=0)
    plain = tuple(each.model_dump(mode="json", exclude={"relpath"}) for each in documents)
    taken = client.replication.send(NewChanges(kind=Kind.FILES, since=since, upto=upto, documents=plain))
    return [refusal.message for refusal in taken.refused]


@BOTH
def test_a_station_writes_its_own_experiments_only(stations: list[Sender]) -> None:
    mine, other = stations
    for sender in stations:
        sender.register(sender.experiment("milk"), "data/a")
        sender.send()
    theirs = next(iter(other.documents().values()))
    own = next(iter(mine.documents().values()))
    before = other.copies()
    assert "is none of station" in sent(mine, theirs)[0]
    assert "is none of station" in sent(mine, document(mine, theirs.experiment_uid))[0]
    stolen = document(mine, own.experiment_uid)
    assert "of another file" in sent(mine, stolen.model_copy(update={"uid": theirs.uid}))[0]
    assert "of another file" in sent(mine, stolen.model_copy(update={"versions": theirs.versions}))[0]
    ledger = theirs.versions[0].replicas[0].ledger
    replica = stolen.versions[0].replicas[0].model_copy(update={"ledger": ledger})
    versions = (stolen.versions[0].model_copy(update={"replicas": (replica,)}),)
    assert "of another file" in sent(mine, stolen.model_copy(update={"versions": versions}))[0]
    assert other.copies() == before
    assert mine.copies() == mine.documents()


@BOTH
def test_a_document_that_cannot_be_taken_does_not_keep_the_others_out(station: Sender) -> None:
    experiment = station.experiment()
    station.register(experiment, "data/a")
    station.send()
    good, bad = document(station, experiment.uid), document(station, experiment.uid, "data/bad")
    twice = document(station, experiment.uid)
    refused = sent(station, good, twice, bad.model_copy(update={"metadata": {"a": "\0"}}))
    assert len(refused) == 2
    assert "NUL" in refused[0]
    paths = sorted(file.path or "" for file in station.copies().values())
    assert paths == ["data/a", "data/x"]


def test_people_and_other_catalogues_may_not_send(site: Running, station: Sender) -> None:
    station.register(station.experiment(), "data/a")
    with station.database.read() as tx:
        changes = core.next_changes(tx, Kind.FILES, None)
    assert changes is not None
    with pytest.raises(NotPermittedError):
        people(site).replication.send(changes)
    with pytest.raises(NotPermittedError):
        people(site).replication.positions()
    with pytest.raises(ConflictError, match="itself"):
        site.as_(site.bootstrap.service_key, station=site.settings.station.name).replication.send(changes)


def test_both_sides_tell_how_far_behind_the_site_is(station: Sender) -> None:
    experiment = station.experiment()
    station.register(experiment, "data/a")
    station.send()
    station.register(experiment, "data/b", "data/c")

    def link() -> tuple[int, bool, bool]:
        with station.database.read() as tx:
            found = core_status.unfinished(tx, "http://site").site
        assert found is not None
        return found.waiting, found.cut_off_since is not None, found.heard_at is not None

    assert link() == (2, False, True)
    station.loop.failed(ConnectionError("no route to host"))
    assert link() == (2, True, True)
    assert station.said == ["replicate: ConnectionError: no route to host"]
    station.loop.failed(ConnectionError("no route to host"))
    assert len(station.said) == 1
    station.send()
    assert link() == (0, False, True)
    with station.database.read() as tx:
        assert core_status.unfinished(tx, "").site is None
    status = people(station.site).status(Service.CATALOG)
    mine = [each for each in status.followers if each.station == station.station.name]
    assert {(each.waiting, each.kind) for each in mine} == {(0, kind) for kind in Kind}
