"""Datasets, runs, links of provenance and the history of metadata come to the site's catalogue as well."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from beamkeeper.core import datasets as core_datasets
from beamkeeper.core import files as core_files
from beamkeeper.core import provenance as core_provenance
from beamkeeper.core import replication as core
from beamkeeper.core import runs as core_runs
from beamkeeper.db import CatalogTransaction, Database, backup
from beamkeeper.db.base import new_uid
from beamkeeper.domain.datasets import Dataset, DatasetQuery, DatasetState, Member, MemberQuery, NewDataset
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import FileDeletion, FileQuery
from beamkeeper.domain.provenance import Making, NewDerivation, SourceRef, Towards
from beamkeeper.domain.replication import Kind, NewChanges, Position
from beamkeeper.domain.runs import NewRun, NewRunRule, Run, RunQuery, RunState, RunStop
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Caller, Grant, Role
from beamkeeper.testing.catalogue import new_file
from beamkeeper.testing.following import Sender
from following.sites import ADMINISTRATOR, BOTH, people

MAKING = Making(
    job_uid=new_uid(),
    number=2,
    workflow="sum",
    workflow_owner="ada",
    workflow_version=1,
    command="sum a b",
    host="node7",
    account="beam",
)


def dataset(sender: Sender, experiment: Experiment, name: str = "best", query: str | None = None) -> Dataset:
    new = NewDataset(experiment_uid=experiment.uid, name=name, query=query, metadata={"sample": "Ag"})
    with sender.database.write() as tx:
        return core_datasets.create(tx, ADMINISTRATOR, new)


def run(sender: Sender, experiment: Experiment, name: str = "12") -> Run:
    with sender.database.write() as tx:
        return core_runs.create(
            tx, ADMINISTRATOR, NewRun(experiment_uid=experiment.uid, name=name, start={"energy": 7.1})
        )


def put(sender: Sender, into: Dataset | Run, *uids: UUID) -> None:
    verb: Any = core_datasets.add_files if isinstance(into, Dataset) else core_runs.add_files
    with sender.database.write() as tx:
        assert verb(tx, ADMINISTRATOR, into.uid, file_uids=uids).files == len(uids)


def derive(sender: Sender, made: UUID, *sources: UUID) -> None:
    new = NewDerivation(sources=tuple(SourceRef(file_uid=uid) for uid in sources), job="reduce", stage="2")
    with sender.database.write() as tx:
        core_provenance.record(tx, ADMINISTRATOR, made, new=new)


def apply_rules(sender: Sender) -> None:
    is_more = True
    while is_more:
        with sender.database.write() as tx:
            is_more = tx.run_rules.step(100)


def paths(members: Iterable[Member]) -> list[str | None]:
    return [member.file.path for member in members]


@BOTH
def test_a_dataset_follows_with_its_files_its_history_and_what_is_frozen(station: Sender) -> None:
    experiment = station.experiment()
    first, second, third = station.register(experiment, "data/a", "data/b", "data/c")
    made = dataset(station, experiment)
    put(station, made, first, second, third)
    station.send()
    assert station.copied_records() == station.records()
    site = people(station.site)
    assert paths(site.datasets.files(made.uid)) == ["data/a", "data/b", "data/c"]
    with station.database.write() as tx:
        core_datasets.remove_files(tx, ADMINISTRATOR, made.uid, file_uids=(second,))
        core_datasets.set_metadata(tx, ADMINISTRATOR, made.uid, patch={"sample": "Au"})
    with station.database.write() as tx:
        hidden = FileQuery(experiment_uid=experiment.uid, glob="data/c")
        core_files.delete(tx, ADMINISTRATOR, FileDeletion(query=hidden, expected_count=1))
    with station.database.write() as tx:
        core_datasets.freeze(tx, ADMINISTRATOR, made.uid)
    station.register(experiment, new_file("data/a", content=b"newer", number=2))
    station.send()
    assert station.copied_records() == station.records()
    (member,) = site.datasets.files(made.uid)
    assert (member.file.path, member.version.number, member.file.version) == ("data/a", 1, 2)
    copy = site.datasets.get(made.uid)
    assert (copy.state, copy.owner, copy.metadata) == (DatasetState.FROZEN, "ada", {"sample": "Au"})
    (change,) = site.datasets.metadata_history(made.uid)
    assert (change.changed_by, change.before, change.patch) == ("ada", {"sample": "Ag"}, {"sample": "Au"})
    assert [file.path for file in site.files.find(FileQuery(experiment_uid=experiment.uid, query='dataset = "best"'))]


@BOTH
def test_runs_follow_by_rule_and_by_call_and_go_where_their_files_go(station: Sender) -> None:
    experiment = station.experiment()
    rule = NewRunRule(experiment_uid=experiment.uid, path="data/scan{run}/*")
    with station.database.write() as tx:
        uid = core_runs.add_rule(tx, ADMINISTRATOR, rule).uid
    station.register(experiment, "data/scan7/a", "data/scan7/b", "data/scan8/a")
    (other,) = station.register(experiment, "data/other")
    told = run(station, experiment)
    put(station, told, other)
    station.send()
    assert station.copied_records() == station.records()
    site = people(station.site)
    query = RunQuery(experiment_uid=experiment.uid)
    assert {each.name: each.state for each in site.runs.list(query)} == {
        "7": RunState.INFERRED,
        "8": RunState.INFERRED,
        "12": RunState.RUNNING,
    }
    seven = site.runs.named(experiment.uid, "7")
    assert paths(site.runs.files(seven.uid)) == ["data/scan7/a", "data/scan7/b"]
    with station.database.write() as tx:
        core_runs.stop(tx, ADMINISTRATOR, told.uid, end=RunStop(stop={"dose": 3}))
        core_runs.remove_rule(tx, ADMINISTRATOR, uid)
    apply_rules(station)
    station.send()
    assert station.copied_records() == station.records()
    (left,) = site.runs.list(query)
    assert (left.name, left.state, left.metadata) == (
        "12",
        RunState.STOPPED,
        {"start": {"energy": 7.1}, "stop": {"dose": 3}},
    )
    with pytest.raises(NotFoundError):
        site.runs.get(seven.uid)
    with station.database.write() as tx:
        core_runs.add_rule(tx, ADMINISTRATOR, rule)
    apply_rules(station)
    station.send()
    assert station.copied_records() == station.records()
    assert paths(site.runs.files(seven.uid)) == ["data/scan7/a", "data/scan7/b"]


@BOTH
def test_links_of_provenance_follow_and_are_read_within_ones_rights(station: Sender) -> None:
    open_, closed = station.experiment("open"), station.experiment("closed")
    (raw,) = station.register(closed, "data/raw")
    half, made = station.register(open_, "analysis/half", "analysis/made")
    derive(station, half, raw)
    by_job = NewDerivation(sources=(SourceRef(file_uid=half),), job="reduce", stage="2", making=MAKING)
    with station.database.write() as tx:
        tx.derivations.add(made, by_job, by="ada")
    station.send()
    assert station.copied_records() == station.records()
    chain = people(station.site).provenance.why(made)
    assert [each.file.path for each in chain.files if each.file] == ["analysis/made", "analysis/half", "data/raw"]
    assert {(link.job, link.stage, link.recorded_by) for link in chain.links} == {("reduce", "2", "ada")}
    assert [link.making for link in chain.links] == [MAKING, None]
    grant = Grant(user_uid=new_uid(), role=Role.USER, experiment_uid=open_.uid)
    with station.site.contexts[Service.CATALOG].database.read() as tx:
        member = Caller("bob", user_uid=new_uid(), grants=(grant,))
        seen = core_provenance.why(tx, member, made, towards=Towards.SOURCES)
        assert [each.is_hidden for each in seen.files] == [False, False, True]
        assert core_datasets.page(tx, member, DatasetQuery()).items == ()


@BOTH
def test_records_of_others_are_not_found_at_the_site(station: Sender) -> None:
    mine, theirs = station.experiment("mine"), station.experiment("theirs")
    for experiment in (mine, theirs):
        dataset(station, experiment)
        run(station, experiment)
    station.send()
    with station.site.contexts[Service.CATALOG].database.read() as tx:
        grant = Grant(user_uid=new_uid(), role=Role.USER, experiment_uid=mine.uid)
        member = Caller("bob", user_uid=new_uid(), grants=(grant,))
        sets = core_datasets.page(tx, member, DatasetQuery()).items
        runs = core_runs.page(tx, member, RunQuery()).items
        hidden = tx.datasets.find(theirs.uid, "best")
        assert hidden is not None
        for verb in (core_datasets.show, core_datasets.count):
            with pytest.raises(NotFoundError):
                verb(tx, member, hidden.uid)
        with pytest.raises(NotFoundError):
            core_datasets.files(tx, member, hidden.uid, query=MemberQuery())
    assert [each.experiment_uid for each in sets] == [each.experiment_uid for each in runs] == [mine.uid]


def test_copies_of_records_are_changed_at_their_station_only(station: Sender) -> None:
    experiment = station.experiment()
    one, two = station.register(experiment, "data/a", "data/b")
    made, told = dataset(station, experiment), run(station, experiment)
    put(station, made, one)
    station.send()
    site = people(station.site)
    before = station.copied_records()
    for change in (
        lambda: site.datasets.create(NewDataset(experiment_uid=experiment.uid, name="new")),
        lambda: site.datasets.add_files(made.uid, [two]),
        lambda: site.datasets.remove_files(made.uid, [one]),
        lambda: site.datasets.set_metadata(made.uid, {"a": 1}),
        lambda: site.datasets.freeze(made.uid),
        lambda: site.runs.create(NewRun(experiment_uid=experiment.uid, name="13")),
        lambda: site.runs.stop(told.uid, RunStop()),
        lambda: site.runs.add_files(told.uid, [two]),
        lambda: site.runs.set_metadata(told.uid, {"a": 1}),
        lambda: site.provenance.record(two, [one]),
    ):
        with pytest.raises(ConflictError, match=f"change it there, with --station {station.station.name}"):
            change()
    assert station.copied_records() == before


@BOTH
def test_records_of_a_station_that_is_restored_become_those_that_it_has(station: Sender, tmp_path: Path) -> None:
    experiment = station.experiment()
    first, second = station.register(experiment, "data/a", "data/b")
    kept = dataset(station, experiment)
    put(station, kept, first)
    station.send()
    backup.save(station.database, Service.CATALOG, tmp_path / "saved")
    (lost,) = station.register(experiment, "data/lost")
    put(station, kept, second)
    put(station, dataset(station, experiment, "again"), second, lost)
    put(station, dataset(station, experiment, "lost"), second)
    put(station, run(station, experiment), second)
    derive(station, lost, first)
    station.send()
    assert station.copied_records() == station.records()
    url = f"sqlite:///{tmp_path / 'restored'}.db"
    backup.restore(url, Service.CATALOG, tmp_path / "saved")
    with closing(Database(url, CatalogTransaction)) as restored:
        restored.home, station.database = station.station.name, restored
        again = dataset(station, experiment, "again")
        put(station, again, first)
        station.restart()
        station.send()
        copies = station.copied_records()
        for kind, held in station.records().items():
            assert held.items() <= copies[kind].items()
        site = people(station.site)
        names = {each.name: each.uid for each in site.datasets.list(DatasetQuery(experiment_uid=experiment.uid))}
        assert names == {"best": kept.uid, "again": again.uid}
        assert list(site.runs.list(RunQuery(experiment_uid=experiment.uid))) == []
        assert paths(site.datasets.files(kept.uid)) == paths(site.datasets.files(again.uid)) == ["data/a"]
        assert copies[Kind.DERIVATIONS] == {}


@BOTH
def test_what_a_file_refers_to_comes_before_it(station: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = station.experiment()
    station.register(experiment, "data/a")
    station.send()
    (uid,) = station.register(experiment, "data/b")
    read = core.next_changes
    met: list[Kind] = []

    def meanwhile(tx: CatalogTransaction, kind: Kind, since: Position | None, *, limit: int) -> NewChanges | None:
        if kind is Kind.RUNS and not met:  # the datasets were looked at, and the files are not read yet
            met.append(kind)
            put(station, dataset(station, experiment), uid)
        return read(tx, kind, since, limit=limit)

    monkeypatch.setattr(core, "next_changes", meanwhile)
    station.send()
    assert met
    assert station.copied_records() == station.records()


def sent(sender: Sender, kind: Kind, *documents: Any) -> list[str]:
    """Send documents under a station's key, and return why they are refused."""
    client = sender.client()
    since = client.replication.positions().positions.get(kind)
    plain = tuple(each.model_dump(mode="json") for each in documents)
    upto = since or Position(epoch="e", number=0)
    taken = client.replication.send(NewChanges(kind=kind, since=since, upto=upto, documents=plain))
    return [refusal.message for refusal in taken.refused]


@BOTH
def test_a_station_writes_records_of_its_own_experiments_only(stations: list[Sender]) -> None:
    mine, other = stations
    for sender in stations:
        experiment = sender.experiment("milk")
        one, two = sender.register(experiment, "data/a", "data/b")
        put(sender, dataset(sender, experiment), one)
        run(sender, experiment)
        derive(sender, two, one)
        sender.send()
    before = other.copied_records()
    own, theirs = mine.records(), before
    for kind in (Kind.DATASETS, Kind.RUNS, Kind.DERIVATIONS):
        (their,), (my,) = theirs[kind].values(), own[kind].values()
        assert "is none of station" in sent(mine, kind, their)[0]
        stolen = my.model_copy(update={"uid": their.uid})
        assert "of another" in sent(mine, kind, stolen)[0]
    (link,) = own[Kind.DERIVATIONS].values()
    (their,) = theirs[Kind.DERIVATIONS].values()
    foreign = link.model_copy(update={"uid": new_uid(), "source_uid": their.source_uid})
    assert "another station" in sent(mine, Kind.DERIVATIONS, foreign)[0]
    unknown = link.model_copy(update={"uid": new_uid(), "source_uid": new_uid()})
    assert "not here" in sent(mine, Kind.DERIVATIONS, unknown)[0]
    file = next(iter(own[Kind.FILES].values()))
    (their_set,) = theirs[Kind.DATASETS]
    (member,) = next(each.datasets for each in own[Kind.FILES].values() if each.datasets)
    guest = file.model_copy(update={"datasets": (member.model_copy(update={"dataset_uid": their_set}),)})
    assert sent(mine, Kind.FILES, guest.model_copy(update={"path": file.path})) == []
    assert other.copied_records() == before
    assert paths(people(mine.site).datasets.files(their_set)) == ["data/a"]
