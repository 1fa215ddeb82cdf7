"""Datasets, runs, rules and provenance: what one can do with them, and who may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from beamkeeper.core import datasets, files, provenance, runs
from beamkeeper.db import CatalogTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.domain.arriving import arriving
from beamkeeper.domain.datasets import DatasetQuery, DatasetState, MemberQuery, NewDataset
from beamkeeper.domain.errors import AlreadyExistsError, ConflictError, InvalidError, NotFoundError, NotPermittedError
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.provenance import NewDerivation, SourceRef, Towards
from beamkeeper.domain.runs import NewRun, NewRunRule, RunQuery, RunState, RunStop
from beamkeeper.domain.users import Caller, Publicity, Role
from beamkeeper.testing.catalogue import Catalogue, new_file

STRANGER = Caller("stranger", user_uid=new_uid())


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as made:
        yield made


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Catalogue, Uids]]:
    """A catalogue for all tests that leave nothing behind."""
    with closing(Catalogue(f"sqlite:///{tmp_path_factory.mktemp('kept') / 'catalog.db'}")) as made:
        yield made, filled(made)


@dataclass
class Uids:
    """Of what stands in an experiment: two files, a dataset, a run and a rule."""

    experiment: UUID
    file: UUID
    source: UUID
    dataset: UUID
    run: UUID
    rule: UUID


def filled(catalogue: Catalogue, experiment: str = "coffee") -> Uids:
    uid = catalogue.experiment(experiment).uid
    pi = catalogue.caller(Role.PI, experiment)
    new = arriving([new_file(f"data/{name}", experiment_uid=uid) for name in ("file", "source")])
    with catalogue.database.write() as tx:
        file, source = (answer.file_uid for answer in files.register(tx, catalogue.service(), new).files)
        assert file is not None
        assert source is not None
        dataset = datasets.create(tx, pi, NewDataset(experiment_uid=uid, name="all"))
        datasets.add_files(tx, pi, dataset.uid, file_uids=(file,))
        run = runs.create(tx, pi, NewRun(experiment_uid=uid, name="1"))
        rule = runs.add_rule(tx, pi, NewRunRule(experiment_uid=uid, field="scan"))
        return Uids(uid, file, source, dataset.uid, run.uid, rule.uid)


Verb = Callable[[CatalogTransaction, Caller, Uids], object]
PATCH: Metadata = {"note": "x"}
LEADERS = {Role.ADMINISTRATOR, Role.STATION_MANAGER, Role.PI, Role.MANAGER}
MEMBERS = LEADERS | {Role.USER}
MATRIX: dict[str, tuple[Verb, set[Role]]] = {
    "dataset create": (
        lambda tx, who, at: datasets.create(
            tx, who, NewDataset(experiment_uid=at.experiment, name=f"of {who.username}")
        ),
        MEMBERS,
    ),
    "dataset page": (lambda tx, who, at: datasets.page(tx, who, DatasetQuery(experiment_uid=at.experiment)), MEMBERS),
    "dataset show": (lambda tx, who, at: datasets.show(tx, who, at.dataset), MEMBERS),
    "dataset files": (lambda tx, who, at: datasets.files(tx, who, at.dataset, query=MemberQuery()), MEMBERS),
    "dataset count": (lambda tx, who, at: datasets.count(tx, who, at.dataset), MEMBERS),
    "dataset add": (lambda tx, who, at: datasets.add_files(tx, who, at.dataset, file_uids=(at.file,)), MEMBERS),
    "dataset remove": (lambda tx, who, at: datasets.remove_files(tx, who, at.dataset, file_uids=(at.file,)), MEMBERS),
    "dataset set": (lambda tx, who, at: datasets.set_metadata(tx, who, at.dataset, patch=PATCH), MEMBERS),
    "dataset history": (
        lambda tx, who, at: datasets.metadata_history(tx, who, at.dataset, after=None, limit=1),
        MEMBERS,
    ),
    "dataset freeze": (lambda tx, who, at: datasets.freeze(tx, who, at.dataset), LEADERS),
    "run create": (
        lambda tx, who, at: runs.create(tx, who, NewRun(experiment_uid=at.experiment, name=who.username)),
        MEMBERS,
    ),
    "run stop": (lambda tx, who, at: runs.stop(tx, who, at.run, end=RunStop()), MEMBERS),
    "run page": (lambda tx, who, at: runs.page(tx, who, RunQuery(experiment_uid=at.experiment)), MEMBERS),
    "run show": (lambda tx, who, at: runs.show(tx, who, at.run), MEMBERS),
    "run files": (lambda tx, who, at: runs.files(tx, who, at.run, query=MemberQuery()), MEMBERS),
    "run count": (lambda tx, who, at: runs.count(tx, who, at.run), MEMBERS),
    "run add": (lambda tx, who, at: runs.add_files(tx, who, at.run, file_uids=(at.file,)), MEMBERS),
    "run remove": (lambda tx, who, at: runs.remove_files(tx, who, at.run, file_uids=(at.file,)), MEMBERS),
    "run set": (lambda tx, who, at: runs.set_metadata(tx, who, at.run, patch=PATCH), MEMBERS),
    "run history": (lambda tx, who, at: runs.metadata_history(tx, who, at.run, after=None, limit=1), MEMBERS),
    "rules": (lambda tx, who, at: runs.rules(tx, who, at.experiment), MEMBERS),
    "rule add": (
        lambda tx, who, at: runs.add_rule(tx, who, NewRunRule(experiment_uid=at.experiment, path="data/{run}")),
        LEADERS,
    ),
    "rule remove": (lambda tx, who, at: runs.remove_rule(tx, who, at.rule), LEADERS),
    "derive": (
        lambda tx, who, at: provenance.record(
            tx, who, at.file, new=NewDerivation(sources=[SourceRef(file_uid=at.source)])
        ),
        MEMBERS,
    ),
    "why": (lambda tx, who, at: provenance.why(tx, who, at.file, towards=Towards.SOURCES), MEMBERS),
}
TYPE_RULE: Verb = lambda tx, who, _: runs.add_rule(tx, who, NewRunRule(type="SAXS", field="scan"))  # noqa: E731


@pytest.mark.parametrize("name", MATRIX)
def test_each_role_may_what_the_matrix_says(kept: tuple[Catalogue, Uids], name: str) -> None:
    verb, allowed = MATRIX[name]
    catalogue, at = kept
    may = set()
    for role in Role:
        try:
            with catalogue.database.write() as tx:
                verb(tx, catalogue.caller(role), at)
                may.add(role)
                raise InterruptedError  # each role finds the same, so nothing is kept
        except (NotPermittedError, InterruptedError):
            continue
    assert may == allowed


@pytest.mark.parametrize("name", MATRIX)
def test_to_a_stranger_nothing_is_there(kept: tuple[Catalogue, Uids], name: str) -> None:
    verb, _ = MATRIX[name]
    catalogue, at = kept
    nowhere = Uids(*(new_uid() for _ in range(6)))
    elsewhere = catalogue.caller(Role.PI, "tea")
    other_station = catalogue.caller(Role.STATION_MANAGER, station_uid=new_uid())
    for caller in (STRANGER, elsewhere, other_station, catalogue.service(new_uid())):
        sentences = []
        for uids in (at, nowhere):
            with catalogue.database.write() as tx, pytest.raises(NotFoundError) as refusal:
                verb(tx, caller, uids)
            sentence = refusal.value.message
            for uid in vars(uids).values():
                sentence = sentence.replace(str(uid), "UID")
            sentences.append(sentence)
        assert sentences[0] == sentences[1]


def test_rules_of_a_type_are_for_administrators(catalogue: Catalogue) -> None:
    at = filled(catalogue)
    for role in Role:
        with catalogue.database.write() as tx:
            if role is Role.ADMINISTRATOR:
                TYPE_RULE(tx, catalogue.caller(role), at)
            else:
                with pytest.raises(NotPermittedError):
                    TYPE_RULE(tx, catalogue.caller(role), at)


def test_lists_are_within_ones_rights(catalogue: Catalogue) -> None:
    filled(catalogue, "coffee")
    filled(catalogue, "tea")
    catalogue.experiment("open", publicity=Publicity.FACILITY)
    filled(catalogue, "open")
    seen = {STRANGER: 1, catalogue.caller(Role.USER, "tea"): 2, catalogue.caller(Role.ADMINISTRATOR): 3}
    for caller, count in seen.items():
        with catalogue.database.read() as tx:
            assert len(datasets.page(tx, caller, DatasetQuery()).items) == count
            assert len(runs.page(tx, caller, RunQuery()).items) == count


def test_a_dataset_is_made_once_by_its_name(catalogue: Catalogue) -> None:
    uid, who = catalogue.experiment().uid, catalogue.caller(Role.USER)
    new = NewDataset(experiment_uid=uid, name="all", title="Everything", metadata={"n": 1})
    with catalogue.database.write() as tx:
        first = datasets.create(tx, who, new)
        assert datasets.create(tx, who, new) == first
        with pytest.raises(AlreadyExistsError):
            datasets.create(tx, who, new.model_copy(update={"title": "Something else"}))
        with pytest.raises(AlreadyExistsError):
            datasets.create(tx, catalogue.caller(Role.PI), new)
        with pytest.raises(InvalidError):
            datasets.create(tx, who, new.model_copy(update={"name": "b", "metadata": {"n": 2**70}}))


def test_the_owner_freezes_and_then_nothing_comes_or_goes(catalogue: Catalogue) -> None:
    at, who = filled(catalogue), catalogue.caller(Role.USER)
    with catalogue.database.write() as tx:
        own = datasets.create(tx, who, NewDataset(experiment_uid=at.experiment, name="own"))
        assert datasets.freeze(tx, who, own.uid).state is DatasetState.FROZEN
        assert datasets.freeze(tx, who, own.uid).frozen_at == datasets.show(tx, who, own.uid).frozen_at
        for ask in (datasets.add_files, datasets.remove_files):
            with pytest.raises(ConflictError, match="frozen"):
                ask(tx, who, own.uid, file_uids=(at.file,))
        assert datasets.set_metadata(tx, who, own.uid, patch={"n": 1}).metadata == {"n": 1}
        saved = datasets.create(tx, who, NewDataset(experiment_uid=at.experiment, name="saved", query='path ~ "*"'))
        with pytest.raises(ConflictError, match="query"):
            datasets.add_files(tx, who, saved.uid, file_uids=(at.file,))


@pytest.mark.parametrize("query", ["size >", "size >> 1", "energy > 12 parsecs per fortnight and", "("])
def test_a_query_with_a_fault_is_refused_as_the_dataset_is_made(catalogue: Catalogue, query: str) -> None:
    uid, who = catalogue.experiment().uid, catalogue.caller(Role.USER)
    with pytest.raises(InvalidError), catalogue.database.write() as tx:
        datasets.create(tx, who, NewDataset(experiment_uid=uid, name="bad", query=query))
    with catalogue.database.read() as tx:
        assert datasets.page(tx, who, DatasetQuery()).items == ()


def test_a_saved_query_asks_for_metadata_in_any_unit(catalogue: Catalogue) -> None:
    uid, who = catalogue.experiment().uid, catalogue.caller(Role.USER)
    energies = [(12.4, "keV"), (7100, "eV"), (16900.0, "eV")]
    new = [
        new_file(f"data/{i}", experiment_uid=uid, metadata={"energy": {"value": value, "unit": unit}})
        for i, (value, unit) in enumerate(energies)
    ]
    with catalogue.database.write() as tx:
        files.register(tx, catalogue.service(), arriving(new))
        saved = datasets.create(tx, who, NewDataset(experiment_uid=uid, name="hard", query="energy > 12 keV"))
        paths = [member.file.path for member in datasets.files(tx, who, saved.uid, query=MemberQuery()).items]
        assert paths == ["data/0", "data/2"]
        assert datasets.count(tx, who, saved.uid).files == 2
        datasets.freeze(tx, who, saved.uid)
        assert datasets.count(tx, who, saved.uid).files == 2


def test_a_run_begins_and_ends_once(catalogue: Catalogue) -> None:
    uid, who = catalogue.experiment().uid, catalogue.caller(Role.USER)
    new, end = NewRun(experiment_uid=uid, name="142", start={"plan": "scan"}), RunStop(stop={"points": 51})
    with catalogue.database.write() as tx:
        run = runs.create(tx, who, new)
        assert (run.state, run.started_at) == (RunState.RUNNING, tx.now)
        assert runs.create(tx, who, new) == run
        with pytest.raises(ConflictError):
            runs.create(tx, who, new.model_copy(update={"start": {"plan": "count"}}))
        stopped = runs.stop(tx, who, run.uid, end=end)
        assert (stopped.state, stopped.metadata) == (
            RunState.STOPPED,
            {"start": {"plan": "scan"}, "stop": {"points": 51}},
        )
        assert runs.stop(tx, who, run.uid, end=end) == stopped
        assert runs.create(tx, who, new) == stopped
        with pytest.raises(ConflictError):
            runs.stop(tx, who, run.uid, end=RunStop(stop={"points": 50}))


def test_new_files_and_new_metadata_follow_the_rules(catalogue: Catalogue) -> None:
    at, who = filled(catalogue), catalogue.caller(Role.PI)
    new = arriving([new_file("data/a", experiment_uid=at.experiment, metadata={"scan": 7})])
    with catalogue.database.write() as tx:
        (answer,) = files.register(tx, catalogue.service(), new).files
        assert answer.file_uid is not None
        query = RunQuery(file_uid=answer.file_uid)
        assert [run.name for run in runs.page(tx, who, query).items] == ["7"]
        files.set_metadata(tx, who, answer.file_uid, patch={"scan": 8})
        assert [run.name for run in runs.page(tx, who, query).items] == ["8"]


@pytest.mark.parametrize(
    "bad",
    [
        {"path": "{run}"},
        {"experiment_uid": new_uid(), "type": "SAXS", "path": "{run}"},
        {"type": "SAXS"},
        {"type": "SAXS", "path": "{run}", "field": "a"},
        {"type": "SAXS", "path": "data/*"},
        {"type": "SAXS", "field": "a..b"},
        {"type": "SAXS", "field": ""},
    ],
)
def test_a_rule_that_says_nothing_or_too_much_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"say|pattern|empty part"):
        NewRunRule.model_validate(bad)


def test_the_feed_tells_of_datasets_runs_and_links(catalogue: Catalogue) -> None:
    who = catalogue.caller(Role.ADMINISTRATOR)
    with catalogue.database.read() as tx:
        start = tx.events.cursor()
    at = filled(catalogue)
    with catalogue.database.write() as tx:
        runs.stop(tx, who, at.run, end=RunStop())
        MATRIX["derive"][0](tx, who, at)
        datasets.freeze(tx, who, at.dataset)
    from beamkeeper.domain.users import Reach

    with catalogue.database.read() as tx:
        told = [event.kind for event in tx.events.after(start, limit=100, reach=Reach(is_all=True))[0]]
    assert [kind for kind in told if kind not in ("files.available", "identity.changed")] == [
        "datasets.created",
        "datasets.changed",
        "runs.started",
        "runs.stopped",
        "files.derived",
        "datasets.frozen",
    ]
