"""What one can do with files, and who may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.core import files as core
from beamkeeper.db import CatalogTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.domain.arriving import arriving
from beamkeeper.domain.errors import ConflictError, DmError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.events import Cursor, Event
from beamkeeper.domain.experiments import ExperimentChange
from beamkeeper.domain.files import FileDeletion, FileLookup, FileQuery, PathRef, RegisteredAs
from beamkeeper.domain.users import Caller, Publicity, Reach, Role
from beamkeeper.testing.catalogue import Catalogue, new_file

STRANGER = Caller("stranger", user_uid=new_uid())


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as made:
        yield made


def filled(catalogue: Catalogue, *paths: str, experiment: str = "coffee", **changes: Any) -> list[UUID]:
    """Register files and return their uids."""
    uid = catalogue.experiment(experiment).uid
    new = arriving([new_file(path, experiment_uid=uid, **changes) for path in paths])
    with catalogue.database.write() as tx:
        answers = core.register(tx, catalogue.service(), new)
    return [answer.file_uid for answer in answers.files if answer.file_uid is not None]


def events(catalogue: Catalogue, after: Cursor) -> list[Event]:
    with catalogue.database.read() as tx:
        return list(tx.events.after(after, limit=1000, reach=Reach(is_all=True))[0])


def now(catalogue: Catalogue) -> Cursor:
    with catalogue.database.read() as tx:
        return tx.events.cursor()


def test_one_event_tells_of_a_batch(catalogue: Catalogue) -> None:
    coffee, tea = catalogue.experiment("coffee"), catalogue.experiment("tea")
    batch = [new_file(f"data/{i}", experiment_uid=coffee.uid) for i in range(150)]
    other = new_file("data/0", experiment_uid=tea.uid, content=b"leaf")
    start = now(catalogue)
    for _ in range(2):
        with catalogue.database.write() as tx:
            answers = core.register(tx, catalogue.service(), arriving([*batch[:75], other, *batch[75:]]))
    told = {event.experiment_uid: event for event in events(catalogue, start)}
    assert [event.kind for event in told.values()] == ["files.available"] * 2
    assert len(events(catalogue, start)) == 2
    assert told[tea.uid].data == {"count": 1, "bytes": 4, "file_uids": [str(answers.files[75].file_uid)]}
    assert (told[coffee.uid].data["count"], told[coffee.uid].data["bytes"]) == (150, 750)
    assert told[coffee.uid].data["file_uids"] == [str(answer.file_uid) for answer in answers.files if answer][:75] + [
        str(answer.file_uid) for answer in answers.files[76:101]
    ]
    assert told[coffee.uid].station_uid == catalogue.station.uid


def test_only_the_stations_own_services_register(catalogue: Catalogue) -> None:
    new = arriving([new_file("data/a", experiment_uid=catalogue.experiment().uid)])
    for caller in (
        catalogue.service(new_uid()),
        STRANGER,
        *(catalogue.caller(r) for r in Role if r.value != "administrator"),
    ):
        with pytest.raises((NotPermittedError, NotFoundError)), catalogue.database.write() as tx:
            core.register(tx, caller, new)
    with catalogue.database.write() as tx:
        assert core.register(tx, catalogue.service(), new).files[0].result is RegisteredAs.CREATED


def test_a_batch_for_an_experiment_that_is_not_known_is_refused_whole(catalogue: Catalogue) -> None:
    known = new_file("data/a", experiment_uid=catalogue.experiment().uid)
    with pytest.raises(NotFoundError), catalogue.database.write() as tx:
        core.register(tx, catalogue.service(), arriving([known, new_file("data/b", experiment_uid=new_uid())]))
    assert filled(catalogue, "data/c")
    with catalogue.database.read() as tx:
        assert len(core.find(tx, catalogue.service(), FileQuery()).items) == 1


Verb = Callable[[CatalogTransaction, Caller, UUID, UUID], object]

READ: dict[str, Verb] = {
    "get": lambda tx, who, file, _: core.get(tx, who, file),
    "history": lambda tx, who, file, _: core.history(tx, who, file),
    "metadata_history": lambda tx, who, file, _: core.metadata_history(tx, who, file, after=None, limit=1),
    "record": lambda tx, who, file, _: core.record(tx, who, file),
    "find": lambda tx, who, _, experiment: core.find(tx, who, FileQuery(experiment_uid=experiment)),
    "lookup": lambda tx, who, _, experiment: core.lookup(
        tx, who, FileLookup(experiment_uid=experiment, paths=[PathRef(path="data/a")])
    ),
}
ANNOTATE: dict[str, Verb] = {
    "set_metadata": lambda tx, who, file, _: core.set_metadata(tx, who, file, patch={"a": 1}),
    "remove_metadata": lambda tx, who, file, _: core.remove_metadata(tx, who, file, key="kept"),
}
DELETE: dict[str, Verb] = {
    "delete": lambda tx, who, _, experiment: core.delete(
        tx, who, FileDeletion(query=FileQuery(experiment_uid=experiment))
    ),
    "restore": lambda tx, who, _, experiment: core.restore(tx, who, FileQuery(experiment_uid=experiment)),
    "find deleted": lambda tx, who, _, experiment: core.find(
        tx, who, FileQuery(experiment_uid=experiment, with_deleted=True)
    ),
}
SUMMARY: dict[str, Verb] = {"summary": lambda tx, who, _, experiment: core.summary(tx, who, experiment)}

LEADERS = {Role.ADMINISTRATOR, Role.STATION_MANAGER, Role.PI, Role.MANAGER}
MEMBERS = LEADERS | {Role.USER}
MATRIX = [
    *((name, verb, MEMBERS) for name, verb in {**READ, **ANNOTATE}.items()),
    *((name, verb, LEADERS) for name, verb in DELETE.items()),
    *((name, verb, set(Role)) for name, verb in SUMMARY.items()),
]


@pytest.mark.parametrize(("name", "verb", "allowed"), MATRIX, ids=[name for name, _, _ in MATRIX])
def test_each_role_may_what_the_matrix_says(catalogue: Catalogue, name: str, verb: Verb, allowed: set[Role]) -> None:
    (file,) = filled(catalogue, "data/a", metadata={"kept": 1})
    experiment = catalogue.experiment().uid
    callers = {role: catalogue.caller(role) for role in Role}
    may = set()
    for role, caller in callers.items():
        with catalogue.database.write() as tx:
            try:
                verb(tx, caller, file, experiment)
            except NotPermittedError:
                continue
        may.add(role)
        if name == "remove_metadata":
            with catalogue.database.write() as tx:
                core.set_metadata(tx, callers[Role.PI], file, patch={"kept": 1})
    assert may == allowed


@pytest.mark.parametrize("name", [*READ, *ANNOTATE, *DELETE, *SUMMARY])
def test_to_a_stranger_nothing_is_there(catalogue: Catalogue, name: str) -> None:
    (file,) = filled(catalogue, "data/a", metadata={"kept": 1})
    verb = {**READ, **ANNOTATE, **DELETE, **SUMMARY}[name]
    elsewhere = catalogue.caller(Role.PI, "tea")
    other_station = catalogue.caller(Role.STATION_MANAGER, station_uid=new_uid())
    for caller in (STRANGER, elsewhere, other_station, catalogue.service(new_uid())):
        sentences = []
        for uids in ((file, catalogue.experiment().uid), (new_uid(), new_uid())):
            with catalogue.database.write() as tx, pytest.raises(NotFoundError) as refusal:
                verb(tx, caller, *uids)
            sentences.append(refusal.value.message.replace(str(uids[0]), "UID").replace(str(uids[1]), "UID"))
        assert sentences[0] == sentences[1]


def test_a_search_is_always_within_ones_rights(catalogue: Catalogue) -> None:
    filled(catalogue, "data/a")
    filled(catalogue, "data/b", experiment="tea")
    catalogue.experiment("open", publicity=Publicity.FACILITY)
    filled(catalogue, "data/c", experiment="open")
    seen = {
        STRANGER: ["data/c"],
        catalogue.caller(Role.USER, "tea"): ["data/b", "data/c"],
        catalogue.caller(Role.STATION_VIEWER): ["data/c"],
        catalogue.caller(Role.STATION_MANAGER): ["data/a", "data/b", "data/c"],
        catalogue.caller(Role.ADMINISTRATOR): ["data/a", "data/b", "data/c"],
        catalogue.service(): ["data/a", "data/b", "data/c"],
        catalogue.service(new_uid()): [],
    }
    for caller, paths in seen.items():
        with catalogue.database.read() as tx:
            assert sorted(file.path or "" for file in core.find(tx, caller, FileQuery()).items) == paths


def test_an_embargo_closes_an_open_experiment(catalogue: Catalogue) -> None:
    experiment = catalogue.experiment("open", publicity=Publicity.PUBLIC)
    (file,) = filled(catalogue, "data/a", experiment="open")
    with catalogue.database.write() as tx:
        tx.experiments.change(experiment.uid, ExperimentChange(embargo_until=tx.now + timedelta(hours=1)))
    with catalogue.database.read() as tx, pytest.raises(NotFoundError):
        core.get(tx, STRANGER, file)
    catalogue.clock.tick(3600)
    with catalogue.database.read() as tx:
        assert core.get(tx, STRANGER, file).path == "data/a"


def test_files_of_a_deleted_experiment_are_out_of_sight(catalogue: Catalogue) -> None:
    (file,) = filled(catalogue, "data/a")
    member, manager = catalogue.caller(Role.USER), catalogue.caller(Role.ADMINISTRATOR)
    with catalogue.database.write() as tx:
        tx.experiments.delete(catalogue.experiment().uid)
    with catalogue.database.read() as tx:
        for caller in (member, manager):
            assert core.find(tx, caller, FileQuery()).items == ()
        with pytest.raises(NotFoundError):
            core.get(tx, member, file)


def test_a_deletion_is_done_only_where_the_count_still_agrees(catalogue: Catalogue) -> None:
    filled(catalogue, "data/a", "data/b", "data/c")
    who, query = catalogue.caller(Role.MANAGER), FileQuery(experiment_uid=catalogue.experiment().uid, glob="data/?")

    def delete(expected: int | None) -> tuple[int, int, bool]:
        with catalogue.database.write() as tx:
            done = core.delete(tx, who, FileDeletion(query=query, expected_count=expected))
        return done.files, done.bytes, done.is_done

    start = now(catalogue)
    assert delete(None) == (3, 15, False)
    filled(catalogue, "data/d")
    with pytest.raises(ConflictError, match="4 files"):
        delete(3)
    assert delete(4) == (4, 20, True)
    with catalogue.database.write() as tx:
        assert core.restore(tx, who, query.model_copy(update={"glob": "*/a"})).files == 1
        assert core.restore(tx, who, query.model_copy(update={"glob": "*/a"})).files == 0
    with catalogue.database.read() as tx:
        assert [file.path for file in core.find(tx, who, query).items] == ["data/a"]
        everything = core.find(tx, who, query.model_copy(update={"with_deleted": True}))
    assert [file.path for file in everything.items if file.deleted_at] == ["data/b", "data/c", "data/d"]
    told = [(event.kind, event.data["count"]) for event in events(catalogue, start)]
    assert told == [("files.available", 1), ("files.deleted", 4), ("files.restored", 1)]


def test_a_deletion_is_of_one_experiment(catalogue: Catalogue) -> None:
    filled(catalogue, "data/a")
    who = catalogue.caller(Role.ADMINISTRATOR)
    with catalogue.database.write() as tx:
        for ask in (
            lambda: core.delete(tx, who, FileDeletion(query=FileQuery())),
            lambda: core.restore(tx, who, FileQuery()),
            lambda: core.find(tx, who, FileQuery(with_deleted=True)),
        ):
            with pytest.raises(InvalidError):
                ask()


def test_a_hidden_file_is_there_for_who_can_bring_it_back(catalogue: Catalogue) -> None:
    (file,) = filled(catalogue, "data/a")
    experiment = catalogue.experiment().uid
    paths = FileLookup(experiment_uid=experiment, paths=[PathRef(path="data/a")])
    with catalogue.database.write() as tx:
        wanted = FileDeletion(query=FileQuery(experiment_uid=experiment), expected_count=1)
        core.delete(tx, catalogue.caller(Role.PI), wanted)
    user = catalogue.caller(Role.USER)
    with catalogue.database.read() as tx:
        assert core.get(tx, catalogue.caller(Role.MANAGER), file).deleted_at is not None
        assert core.lookup(tx, catalogue.service(), paths).items[0].deleted_at is not None
        assert core.lookup(tx, user, paths).items == ()
        with pytest.raises(NotFoundError):
            core.get(tx, user, file)


@pytest.mark.parametrize(
    ("key", "left"),
    [
        ("sample.name", {"sample": {"mass": 1}, "a.b": 1}),
        ("sample", {"a.b": 1}),
        ("a.b", {"sample": {"name": "Ag", "mass": 1}}),
        ("none", NotFoundError),
        ("sample.name.x", NotFoundError),
        ("a..b", InvalidError),
    ],
)
def test_a_key_is_removed_where_it_is(catalogue: Catalogue, key: str, left: dict[str, Any] | type[DmError]) -> None:
    (file,) = filled(catalogue, "data/a", metadata={"sample": {"name": "Ag", "mass": 1}, "a.b": 1})
    with catalogue.database.write() as tx:
        if isinstance(left, dict):
            assert core.remove_metadata(tx, catalogue.caller(Role.USER), file, key=key).metadata == left
        else:
            with pytest.raises(left):
                core.remove_metadata(tx, catalogue.caller(Role.USER), file, key=key)
