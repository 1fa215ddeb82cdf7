"""Searches, on both databases: what they mean, what they may show, and that their pages end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from beamkeeper.builtin.extract_hdf5 import read_hdf5
from beamkeeper.db.finding import bounds, leading, pace, sources
from beamkeeper.db.finding import search as searching
from beamkeeper.db.search import zones
from beamkeeper.db.search.tables import ZONE
from beamkeeper.domain.datasets import NewDataset
from beamkeeper.domain.errors import InvalidError, TooLargeError
from beamkeeper.domain.files import FileOrder, FileQuery
from beamkeeper.domain.provenance import NewDerivation, SourceRef
from beamkeeper.domain.query import printed
from beamkeeper.domain.query.ast import EVERYTHING
from beamkeeper.domain.runs import NewRun
from beamkeeper.domain.stats import FacetQuery
from beamkeeper.domain.users import Action, Role, reach
from beamkeeper.testing.catalogue import Catalogue, new_file
from beamkeeper.testing.queries import NOW, QUERIES, Sample, document_of, means, samples
from db.searched import ALL, fill, found, index, paths, simple

REAL = Path(os.environ.get("BEAMKEEPER_REAL_DATA", Path(__file__).parents[3] / "shared/data/real"))
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no real files in {REAL}")
NUMBERS = count()
LIMITS: Sequence[tuple[Any, str, int, int]] = (
    (leading, "FEW", leading.FEW, -1),
    (leading, "ENOUGH", leading.ENOUGH, -1),
    (leading, "ONE_BY_ONE", leading.ONE_BY_ONE, -1),
    (leading, "SOME", leading.SOME, -1),
    (leading, "TRIAL", leading.TRIAL, 1),
    (leading, "LONG", leading.LONG, 1),
    (leading, "ALONG", leading.ALONG, 1),
    (leading, "_PAGE", leading._PAGE, 0),
    (leading, "DENSE", leading.DENSE, 1),
    (leading, "DROPPED", pace.DROPPED, 1),
    (leading, "_WALKED_EXPERIMENTS", leading._WALKED_EXPERIMENTS, 0),
    (leading, "_TRIED_EXPERIMENTS", leading._TRIED_EXPERIMENTS, 0),
    (sources, "_RANKED_EXPERIMENTS", sources._RANKED_EXPERIMENTS, 0),
    (leading, "_MERGED_EXPERIMENTS", leading._MERGED_EXPERIMENTS, 0),
    (searching, "WALK", pace.WALK, 1),
    (pace, "LEAST", pace.LEAST, 1),
    (zones, "ZONE", ZONE, 2),
)
"""What decides which way a search goes, with other values for it."""


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(data=st.data())
def test_both_notations_mean_the_same_and_show_only_what_the_caller_may_see(
    catalogue: Catalogue, data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = next(NUMBERS)
    # Which way a search goes, and in which steps, must not be seen in what is found.
    for module, name, *values in LIMITS:
        drawn = data.draw(st.sampled_from(values))
        for each in (zones, bounds) if name == "ZONE" else (module,):
            monkeypatch.setattr(each, name, drawn)
    mine, others = data.draw(samples()), data.draw(samples())
    fill(catalogue, f"mine{number}", mine)
    fill(catalogue, f"others{number}", others)
    if data.draw(st.booleans()):
        index(catalogue)
    experiment = catalogue.experiment(f"mine{number}")
    within = reach(catalogue.caller(Role.USER, experiment.name), Action.FILE_READ)
    limit = data.draw(st.sampled_from([1, 2, 100]))
    for node in data.draw(st.lists(QUERIES, min_size=5, max_size=5)):
        expected = sorted(
            file.path for file in mine if means(node, Sample(**{**vars(file), "experiment": experiment.name}))
        )
        for asked in ({"query": printed(node)}, {"filter": document_of(node)}):
            assert sorted(paths(found(catalogue, within, limit=limit, **asked))) == expected, printed(node)
        by_path = FileQuery(experiment_uid=experiment.uid, query=printed(node), order=FileOrder.PATH)
        with catalogue.database.read() as tx:
            assert paths(tx.files.find(by_path, ALL).items) == sorted(expected, key=str.encode), printed(node)
            assert tx.files.count(by_path, is_deleted=False).files == len(expected), printed(node)


def test_the_newest_come_first_and_pages_join(catalogue: Catalogue) -> None:
    files = [simple(f"data/{i:02}", n=i) for i in range(25)]
    fill(catalogue, "one", files)
    for is_indexed in (False, True):
        if is_indexed:
            index(catalogue)
        for query in ("n >= 0 and size > 0", "", "text = data"):
            for limit in (7, 100):
                newest = found(catalogue, query=query, limit=limit, order=FileOrder.NEWEST)
                assert paths(newest) == [file.path for file in reversed(files)], query


def test_a_cursor_goes_with_its_own_search_only(catalogue: Catalogue) -> None:
    fill(catalogue, "one", [simple(f"data/{i}", n=i) for i in range(4)])
    with catalogue.database.read() as tx:
        page = tx.files.find(FileQuery(query="n >= 0", limit=1), ALL)
        others: list[dict[str, Any]] = [{"query": "n >= 1"}, {"query": "n >= 0", "order": "path"}, {}, {"glob": "*"}]
        for other in others:
            with pytest.raises(InvalidError, match="cursor"):
                tx.files.find(FileQuery(after=page.next, **other), ALL)
        same = tx.files.find(FileQuery(query="n >= 0", limit=3, after=page.next), ALL)
    assert len(same.items) == 3


def test_a_page_that_finds_little_stops_and_says_where_to_go_on(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "BUDGET", 40)
    monkeypatch.setattr(searching, "WALK", 20)
    monkeypatch.setattr(pace, "DROPPED", 1)
    for limit in ("FEW", "SOME", "MANY", "TRIAL", "LONG"):
        monkeypatch.setattr(leading, limit, 2)
    fill(catalogue, "one", [simple(f"data/{i:03}", n=i % 50, odd=[i]) for i in range(150)])
    index(catalogue)
    query = FileQuery(query="n < 25 and odd = 7", limit=10)
    with catalogue.database.read() as tx:
        page = tx.files.find(query, ALL)
    assert len(page.items) == 1  # of an index that finds no more than two: it leads at once
    query = FileQuery(query="n < 25 and not n >= 1", limit=10)
    with catalogue.database.read() as tx:
        page = tx.files.find(query, ALL)
    assert page.is_partial
    assert page.searched < 100
    assert len(page.items) < 3
    assert paths(found(catalogue, query=query.query, limit=10)) == ["data/100", "data/050", "data/000"]


def test_files_of_which_many_are_meant_are_walked_until_that_takes_too_long(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "FEW", 2)
    monkeypatch.setattr(leading, "TRIAL", 20)
    fill(catalogue, "one", [simple(f"data/{i:03}", n=i) for i in range(150)])
    fill(catalogue, "two", [simple(f"other/{i:03}", m=i) for i in range(150)])  # newer, and walked past
    index(catalogue)
    newest, oldest = FileQuery(query="n >= 10", limit=10), FileQuery(query="n < 40", limit=10)
    with catalogue.database.read() as tx:
        soon, late = tx.files.find(newest, ALL), tx.files.find(oldest, ALL)
    assert paths(soon.items) == [f"data/{i:03}" for i in range(149, 139, -1)]
    assert soon.searched < 20  # nothing was walked past
    assert paths(late.items) == [f"data/{i:03}" for i in range(39, 29, -1)]
    assert late.searched < 150  # of 110 files in vain it saw no more than a trial
    assert len(found(catalogue, query="n < 40", limit=10)) == 40


def test_files_of_some_days_are_found_without_going_through_all_that_came_after(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zones, "ZONE", 8)
    monkeypatch.setattr(bounds, "ZONE", 8)
    monkeypatch.setattr(leading, "FEW", -1)

    def of_day(i: int, **metadata: Any) -> Sample:
        return Sample(f"data/{i:03}", 1, NOW - timedelta(days=200 - i), True, metadata)

    fill(catalogue, "one", [of_day(i, n=i) for i in range(100)])
    index(catalogue)
    fill(catalogue, "one", [of_day(i) for i in range(100, 110)])  # which waits for the index
    with catalogue.database.read() as tx:
        page = tx.files.find(FileQuery(query="modified >= -170d and modified < -160d"), ALL)
        newest = tx.files.find(FileQuery(query="modified >= -170d", limit=100), ALL)
        none = tx.files.find(FileQuery(query="modified > -1d"), ALL)
    assert paths(page.items) == [f"data/{i:03}" for i in range(39, 29, -1)]
    assert page.searched <= 30  # of 100: the zones of these days, and what is not in the index
    assert paths(newest.items) == [f"data/{i:03}" for i in range(109, 29, -1)]
    assert not none.items
    # A zone becomes wider by what changes in it.
    again = new_file(
        "data/005",
        experiment_uid=catalogue.experiment("one").uid,
        content=b"again",
        number=2,
        modified_at=NOW - timedelta(hours=1),
    )
    with catalogue.database.write() as tx:
        tx.files.register([again], by="service")
    index(catalogue)
    assert paths(found(catalogue, query="modified > -1d")) == ["data/005"]


def test_what_is_not_indexed_is_found_in_the_documents(catalogue: Catalogue) -> None:
    many = {f"k{i:03}": i for i in range(100)}
    fill(catalogue, "one", [simple("data/a", **many), simple("data/b", k099=99, list=[*range(40)]), simple("data/c")])
    index(catalogue)
    assert paths(found(catalogue, query="k099 = 99")) == ["data/b", "data/a"]
    assert paths(found(catalogue, query="list = 39")) == ["data/b"]
    assert paths(found(catalogue, query="not k099 = 99")) == ["data/c"]


def test_a_change_is_found_before_it_is_indexed(catalogue: Catalogue) -> None:
    fill(catalogue, "one", [simple("data/a", n=1), simple("data/b", n=1)])
    index(catalogue)
    (_, old) = found(catalogue, query="n = 1")
    with catalogue.database.write() as tx:
        tx.files.set_metadata(old.uid, {"n": 2}, by="me")
    assert paths(found(catalogue, query="n = 2")) == ["data/a"]
    assert paths(found(catalogue, query="n = 1")) == ["data/b"]
    index(catalogue)
    assert paths(found(catalogue, query="n = 2")) == ["data/a"]


def test_deletion_by_metadata_means_the_documents(catalogue: Catalogue) -> None:
    fill(catalogue, "one", [simple(f"data/{i:04}", n=i, name="Ag") for i in range(1200)])
    uid = catalogue.experiment("one").uid
    query = FileQuery(experiment_uid=uid, query='n < 1100 and meta.name matches "^A"')
    with catalogue.database.write() as tx:
        assert tx.files.count(query, is_deleted=False).files == 1100
        tx.files.hide(query, by="me")
    assert len(found(catalogue, query="n >= 0", limit=1000)) == 100
    index(catalogue)
    assert len(found(catalogue, query="n >= 0", limit=1000)) == 100
    with catalogue.database.write() as tx:
        tx.files.bring_back(FileQuery(experiment_uid=uid, query="n = 3"))
    assert paths(found(catalogue, query="n <= 3")) == ["data/0003"]


def test_the_files_of_a_page_are_read_by_their_numbers_and_not_by_going_through_their_experiment(
    tmp_path: Path,
) -> None:
    """On SQLite: PostgreSQL plans by its statistics."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "f.metadata" in statement:
            asked.append((statement, values))

    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        fill(catalogue, "one", [simple(f"data/{i}") for i in range(9)])
        uid = catalogue.experiment("one").uid
        event.listen(catalogue.database.engine, "before_cursor_execute", note)
        assert len(found(catalogue, experiment_uid=uid, limit=5)) == 9
        event.remove(catalogue.database.engine, "before_cursor_execute", note)
        with catalogue.database.engine.connect() as connection:
            for statement, values in asked:
                plan = [step[3] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
                assert plan[0] == "SEARCH f USING INTEGER PRIMARY KEY (rowid=?)", plan
    assert len(asked) == 2


def test_a_search_that_takes_too_long_is_stopped_with_a_sentence(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamkeeper.db.finding.limits.STATEMENT_S", 0.0005)
    monkeypatch.setattr("beamkeeper.db.finding.limits._INSTRUCTIONS", 10)
    shape = "*a" * 16
    fill(catalogue, "one", [simple("data/" + "a" * 4000 + f"{i}b") for i in range(30)])
    with catalogue.database.read() as tx, pytest.raises(TooLargeError, match="narrow it"):
        tx.files.find(FileQuery(query=f'path ~ "{shape}" or directory ~ "{shape}b"'), ALL)
    monkeypatch.undo()
    assert len(found(catalogue, query="size >= 0")) == 30


def test_a_facet_of_a_search_counts_what_is_found_in_time_and_says_so(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(catalogue, "one", [simple(f"data/{i:03}", n=i, sample="Ag") for i in range(50)])
    index(catalogue)
    query = FacetQuery(keys=["sample"], files=FileQuery(query="n >= 0"))
    with catalogue.database.read() as tx:
        whole = tx.search.statistics(ALL).facets(query, behind=0)
    assert (whole.counted, whole.is_sample, whole.facets[0].values[0].files) == (50, False, 50)
    for module in (pace, searching):
        monkeypatch.setattr(module, "WINDOW", 20)
    monkeypatch.setattr(searching, "HITS_S", -1)
    with catalogue.database.read() as tx:
        some = tx.search.statistics(ALL).facets(query, behind=0)
    assert (some.counted, some.is_sample, some.facets[0].values[0].files) == (20, True, 20)


def test_everything_is_what_no_condition_means(catalogue: Catalogue) -> None:
    fill(catalogue, "one", [simple("data/a")])
    assert printed(EVERYTHING) == ""
    assert paths(found(catalogue, query="")) == paths(found(catalogue, filter={})) == ["data/a"]


def test_files_are_found_by_their_run_their_dataset_and_what_they_were_made_from(catalogue: Catalogue) -> None:
    fill(catalogue, "one", [simple(f"data/{name}") for name in "abc"])
    uid = catalogue.experiment("one").uid
    files = {file.path: file for file in found(catalogue, order=FileOrder.PATH)}
    a, b = files["data/a"], files["data/b"]
    with catalogue.database.write() as tx:
        run = tx.runs.add(NewRun(experiment_uid=uid, name="scan 7"), by="me")
        tx.runs.add_files(run.uid, [a.uid])
        dataset = tx.datasets.add(NewDataset(experiment_uid=uid, name="good"), owner="me")
        tx.datasets.add_files(dataset.uid, [a.uid, b.uid], by="me")
        tx.derivations.add(files["data/c"].uid, NewDerivation(sources=(SourceRef(file_uid=a.uid),)), by="me")
    asked = {
        'run = "scan 7"': ["data/a"],
        f"run = {run.uid}": ["data/a"],
        'run ~ "scan*" and size = 1': ["data/a"],
        "not run exists": ["data/b", "data/c"],
        "dataset in (good, bad)": ["data/a", "data/b"],
        f"dataset = {dataset.uid} and not run exists": ["data/b"],
        "derived_from exists": ["data/c"],
        "derived_from = data/a": ["data/c"],
        f"derived_from = {b.uid}": [],
        'derived_from ~ "data/*" and not run exists': ["data/c"],
    }
    for query, expected in asked.items():
        for order in FileOrder:
            assert sorted(paths(found(catalogue, query=query, order=order))) == expected, query


@needs_real_data
@pytest.mark.parametrize(
    "query",
    [
        "energy = 16.9keV",
        "energy = 16900 eV",
        "energy = 0.7336 angstrom",
        "energy > 0.73 angstrom and energy < 0.74 angstrom",
        "wavelength = 0.7336 angstrom",
        "wavelength > 16.8keV and wavelength < 17keV",
        'user = "Dale Schaefer" and proposal = GUP26110',
        '"schaefer glassy"',
        "energy > 16.5 and energy < 17 and beamline = '15ID'",
    ],
)
def test_a_real_image_is_found_by_what_is_in_it(catalogue: Catalogue, query: str) -> None:
    names = ["aps/AgBehenate_228.hdf5", "dls/Therm_6_2.nxs", "aps/nexus-example.hdf5"]
    documents = [read_hdf5(str(REAL / name)) for name in names]
    fill(catalogue, "real", [Sample(f"data/{n}", 1, NOW, True, d) for n, d in zip(names, documents, strict=True)])
    for is_indexed in (False, True):
        if is_indexed:
            index(catalogue)
        assert paths(found(catalogue, query=query)) == ["data/aps/AgBehenate_228.hdf5"]
