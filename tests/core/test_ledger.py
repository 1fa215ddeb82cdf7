"""The ledger: who may write it, and what it tells, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from uuid import UUID

import pytest

from beamkeeper.core import ledger as core
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import NotFoundError, NotPermittedError
from beamkeeper.domain.files import FileHistory, FileLookup, FileQuery, PathRef, ReadFrom
from beamkeeper.domain.ledger import DirectoryQuery, NewVerification, NewVerifications, ReplicaQuery
from beamkeeper.domain.users import Caller, Reach, Role
from beamkeeper.testing.catalogue import Catalogue, new_file


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        yield made


def filled(catalogue: Catalogue, *paths: str, experiment: str = "coffee") -> list[FileHistory]:
    uid = catalogue.experiment(experiment).uid
    with catalogue.database.write() as tx:
        answers = tx.files.register([new_file(path, experiment_uid=uid) for path in paths], by="service")
        return [tx.files.history(answer.file_uid) for answer in answers if answer.file_uid]


def seen(replica_uid: UUID, catalogue: Catalogue, *, is_match: bool = False) -> NewVerifications:
    item = NewVerification(
        uid=new_uid(),
        replica_uid=replica_uid,
        verified_at=catalogue.clock.tick(),
        is_match=is_match,
        read_from=ReadFrom.DEVICE,
    )
    return NewVerifications(items=(item,), on_behalf_of="ada")


def everybody(catalogue: Catalogue) -> list[Caller]:
    return [*(catalogue.caller(role) for role in Role), catalogue.service(new_uid()), Caller("stranger", new_uid())]


def test_services_alone_write_the_ledger(catalogue: Catalogue) -> None:
    (history,) = filled(catalogue, "data/a")
    new = seen(history.replicas[0].uid, catalogue, is_match=True)
    for caller in everybody(catalogue):
        with pytest.raises((NotPermittedError, NotFoundError)), catalogue.database.write() as tx:
            core.record(tx, caller, new)
    with catalogue.database.write() as tx:
        core.record(tx, catalogue.service(), new)
    with catalogue.database.read() as tx:
        ledger = tx.files.history(history.file.uid).ledger
    assert [row.by for row in ledger] == ["service", "service of a station for ada"]


def test_a_suspect_replica_is_told_to_those_who_listen(catalogue: Catalogue) -> None:
    coffee, tea = filled(catalogue, "data/a", "data/b"), filled(catalogue, "data/c", experiment="tea")
    with catalogue.database.read() as tx:
        start = tx.events.cursor()
    items = [seen(history.replicas[0].uid, catalogue).items[0] for history in (*coffee, *tea)]
    good = seen(coffee[0].replicas[0].uid, catalogue, is_match=True).items[0]
    with catalogue.database.write() as tx:
        core.record(tx, catalogue.service(), NewVerifications(items=(*items[1:], good)))
    with catalogue.database.read() as tx:
        found, _ = tx.events.after(start, limit=10, reach=Reach(is_all=True))
    told = {event.experiment_uid: event.data for event in found if event.kind == core.SUSPECT}
    assert told == {catalogue.experiment(name).uid: {"count": 1} for name in ("coffee", "tea")}


def test_replicas_are_shown_to_the_stations_own_services(catalogue: Catalogue) -> None:
    filled(catalogue, "data/a")
    coffee = ReplicaQuery(experiment_uid=catalogue.experiment().uid)
    for caller in everybody(catalogue):
        with catalogue.database.read() as tx:
            assert core.replicas(tx, caller, ReplicaQuery()).items == ()
            with pytest.raises((NotPermittedError, NotFoundError)):
                core.replicas(tx, caller, coffee)
    with catalogue.database.read() as tx:
        assert len(core.replicas(tx, catalogue.service(), coffee).items) == 1
        assert len(core.replicas(tx, catalogue.service(), ReplicaQuery()).items) == 1


def test_proofs_are_for_readers_and_of_hidden_files_for_services(catalogue: Catalogue) -> None:
    filled(catalogue, "data/a", "data/b")
    uid = catalogue.experiment().uid
    with catalogue.database.write() as tx:
        tx.files.hide(FileQuery(experiment_uid=uid, glob="data/b"), by="ada")
    wanted = FileLookup(experiment_uid=uid, paths=(PathRef(path="data/a"), PathRef(path="data/b")))
    with catalogue.database.read() as tx:
        assert len(core.proofs(tx, catalogue.service(), wanted).items) == 2
        assert [p.file.path for p in core.proofs(tx, catalogue.caller(Role.USER), wanted).items] == ["data/a"]
        for caller in (catalogue.caller(Role.USER, "tea"), Caller("stranger", new_uid())):
            with pytest.raises(NotFoundError):
                core.proofs(tx, caller, wanted)


def test_counts_by_directory_are_for_who_may_see_the_experiment(catalogue: Catalogue) -> None:
    filled(catalogue, "data/a/1")
    uid = catalogue.experiment().uid
    with catalogue.database.read() as tx:
        for role in Role:
            (found,) = core.directories(tx, catalogue.caller(role), uid, DirectoryQuery()).items
            assert (found.path, found.files) == ("data/a", 1)
        with pytest.raises(NotFoundError):
            core.directories(tx, catalogue.caller(Role.PI, "tea"), uid, DirectoryQuery())
