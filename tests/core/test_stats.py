"""Facets and counts: what they say, and that nobody counts what they may not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from beamkeeper.core import stats as core
from beamkeeper.core import status as core_status
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import InvalidError, NotFoundError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.stats import FACET_HITS, Facet, FacetQuery, Facets, Moments, NumberFacet, StatsBy, StatsQuery
from beamkeeper.domain.users import Caller, Publicity, Role
from beamkeeper.testing.catalogue import Catalogue, new_file


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        for experiment, names in {"coffee": ("Ag", "Ag", "Au"), "tea": ("Au", "Fe")}.items():
            uid = made.experiment(experiment).uid
            files = [
                new_file(
                    f"data/s{number % 2}/{number}.tif",
                    experiment_uid=uid,
                    content=bytes(number),
                    metadata={"sample": name, "energy": {"value": 10 + number, "unit": "keV"}, "ok": number > 0},
                )
                for number, name in enumerate(names)
            ]
            with made.database.write() as tx:
                tx.files.register(files, by="test")
        index(made)
        yield made


def index(catalogue: Catalogue) -> None:
    with catalogue.database.write() as tx:
        while tx.search.step(1000):
            pass


def facets(
    catalogue: Catalogue, caller: Caller, *keys: str, limit: int = 20, hits: int = FACET_HITS, **files: Any
) -> Facets:
    query = FacetQuery(keys=keys, files=FileQuery(**files), limit=limit, hits=hits)
    with catalogue.database.read() as tx:
        return core.facets(tx, caller, query)


def shown(facet: Facet) -> dict[str, int]:
    return {value.value: value.files for value in facet.values}


def by(catalogue: Catalogue, caller: Caller, how: StatsBy, **query: Any) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    after = None
    while True:
        with catalogue.database.read() as tx:
            page = core.stats(tx, caller, StatsQuery(by=how, after=after, limit=1, **query))
        found.update((item.name, (item.files, item.bytes)) for item in page.items)
        assert (page.files, page.bytes) >= (sum(n for n, _ in found.values()), 0)
        if page.next is None:
            return found
        after = page.next


def test_facets_count_texts_truths_and_numbers(catalogue: Catalogue) -> None:
    found = facets(catalogue, catalogue.caller(Role.ADMINISTRATOR), "sample", "energy", "ok", "none")
    sample, energy, truth, none = found.facets
    assert shown(sample) == {"Ag": 2, "Au": 2, "Fe": 1}
    assert shown(truth) == {"true": 3, "false": 2}
    assert (none.values, none.numbers, none.other) == ((), (), 0)
    numbers = energy.numbers[0]
    assert (numbers.dimension, numbers.files, numbers.low, numbers.high) == ("plain", 5, 10, 12)
    assert [numbers.mean, numbers.deviation] == pytest.approx([10.8, 0.7483314773547883])
    assert energy.numbers[1].mean == pytest.approx(10.8e3 * 1.602176634e-19)
    assert (found.is_sample, found.counted, found.index_behind) == (False, None, 0)


def test_texts_beyond_the_limit_are_counted_together(catalogue: Catalogue) -> None:
    (sample,) = facets(catalogue, catalogue.caller(Role.ADMINISTRATOR), "sample", limit=1).facets
    assert (shown(sample), sample.other) == ({"Ag": 2}, 3)


def test_with_conditions_the_files_that_meet_them_are_counted(catalogue: Catalogue) -> None:
    administrator = catalogue.caller(Role.ADMINISTRATOR)
    plain = facets(catalogue, administrator, "sample", "energy", "ok")
    every = facets(catalogue, administrator, "sample", "energy", "ok", query="size >= 0")

    def rounded(found: Facets) -> Any:
        numbers = [n for facet in found.facets for n in facet.numbers]
        kinds = [(n.dimension, n.files, n.low, n.high) for n in numbers]
        means = [f"{x:.9g}" for n in numbers for x in (n.mean, n.deviation)]
        return [shown(facet) for facet in found.facets], kinds, means

    assert rounded(every) == rounded(plain)
    assert (every.counted, every.is_sample) == (5, False)
    some = facets(catalogue, administrator, "sample", query='sample = "Ag" and energy > 10.5keV')
    assert (shown(some.facets[0]), some.counted) == ({"Ag": 1}, 1)
    sample = facets(catalogue, administrator, "sample", query="size >= 0", hits=3)
    assert (sample.counted, sample.is_sample, sum(shown(sample.facets[0]).values())) == (3, True, 3)


def test_sqlite_counts_the_values_of_hits_file_by_file_and_not_along_all_terms_of_a_key(tmp_path: Path) -> None:
    """PostgreSQL plans by its statistics."""
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        _counts_file_by_file(catalogue)


def _counts_file_by_file(catalogue: Catalogue) -> None:
    uid = catalogue.experiment("coffee").uid
    many = [
        new_file(f"data/m/{number}.tif", experiment_uid=uid, content=b"1", metadata={"sample": "Ag", "ok": True})
        for number in range(200)
    ]
    with catalogue.database.write() as tx:
        tx.files.register(many, by="test")
    index(catalogue)
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "search_terms.file_id IN" in statement and "EXPLAIN" not in statement:
            asked.append((statement, values))

    event.listen(catalogue.database.engine, "before_cursor_execute", note)
    facets(catalogue, catalogue.caller(Role.ADMINISTRATOR), "sample", "ok", query="size >= 0")
    event.remove(catalogue.database.engine, "before_cursor_execute", note)
    assert len(asked) == 2
    with catalogue.database.engine.connect() as connection:
        for statement, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            assert any("SEARCH search_terms USING PRIMARY KEY (file_id=?" in step[3] for step in plan), plan


def test_everybody_counts_only_what_they_may_read(catalogue: Catalogue) -> None:
    member = catalogue.caller(Role.USER, "tea")
    for query in (None, "size >= 0"):
        (sample,) = facets(catalogue, member, "sample", query=query).facets
        assert shown(sample) == {"Au": 1, "Fe": 1}
    assert by(catalogue, member, StatsBy.EXPERIMENT) == {"tea": (2, 1)}
    assert by(catalogue, member, StatsBy.DAY) == {"2026-03-01": (2, 1)}
    stranger = Caller("stranger", user_uid=new_uid())
    assert facets(catalogue, stranger, "sample").facets[0].values == ()
    assert by(catalogue, stranger, StatsBy.TYPE) == {}
    coffee = catalogue.experiment("coffee").uid
    with pytest.raises(NotFoundError):
        facets(catalogue, member, "sample", experiment_uid=coffee)
    with pytest.raises(NotFoundError):
        by(catalogue, member, StatsBy.TYPE, experiment_uid=coffee)


def test_open_experiments_are_counted_by_everybody_and_deleted_ones_by_nobody(catalogue: Catalogue) -> None:
    water = catalogue.experiment("water", publicity=Publicity.PUBLIC)
    with catalogue.database.write() as tx:
        tx.files.register([new_file("data/w", experiment_uid=water.uid, metadata={"sample": "H2O"})], by="test")
    index(catalogue)
    stranger = Caller("stranger", user_uid=new_uid())
    assert shown(facets(catalogue, stranger, "sample").facets[0]) == {"H2O": 1}
    assert by(catalogue, stranger, StatsBy.EXPERIMENT) == {"water": (1, 5)}
    with catalogue.database.write() as tx:
        tx.experiments.delete(water.uid)
    administrator = catalogue.caller(Role.ADMINISTRATOR)
    assert "H2O" not in shown(facets(catalogue, administrator, "sample").facets[0])
    assert "water" not in by(catalogue, administrator, StatsBy.EXPERIMENT)


def test_files_are_counted_by_experiment_directory_type_and_day(catalogue: Catalogue) -> None:
    administrator = catalogue.caller(Role.ADMINISTRATOR)
    assert by(catalogue, administrator, StatsBy.EXPERIMENT) == {"coffee": (3, 3), "tea": (2, 1)}
    assert by(catalogue, administrator, StatsBy.DIRECTORY) == {"data/s0": (3, 2), "data/s1": (2, 2)}
    assert by(catalogue, administrator, StatsBy.TYPE) == {"tif": (5, 4)}
    assert by(catalogue, administrator, StatsBy.DAY, experiment_uid=catalogue.experiment("tea").uid) == {
        "2026-03-01": (2, 1)
    }
    with pytest.raises(InvalidError), catalogue.database.read() as tx:
        core.stats(tx, administrator, StatsQuery(after="nonsense"))


def test_how_far_the_index_is_behind_is_told(catalogue: Catalogue) -> None:
    with catalogue.database.write() as tx:
        new = new_file("data/late", experiment_uid=catalogue.experiment().uid, metadata={"sample": "late"})
        tx.files.register([new], by="test")
    catalogue.clock.tick(3)
    with catalogue.database.read() as tx:
        work = core_status.unfinished(tx)
        assert (work.queues, work.oldest_s) == ({"index": 1}, 3.0)
    assert facets(catalogue, catalogue.caller(Role.ADMINISTRATOR), "sample").index_behind == 1
    index(catalogue)
    with catalogue.database.read() as tx:
        assert core_status.unfinished(tx).queues == {"index": 0}


def test_moments_that_are_added_are_those_of_all() -> None:
    def of(*numbers: float) -> Moments:
        mean = sum(numbers) / len(numbers)
        squares = sum((x - mean) ** 2 for x in numbers)
        return Moments(count=len(numbers), mean=mean, squares=squares, low=min(numbers), high=max(numbers))

    both = of(1e9, 1e9 + 1).plus(of(1e9 + 2))
    assert both.count == 3
    assert both.deviation == pytest.approx(of(1e9, 1e9 + 1, 1e9 + 2).deviation)
    assert of(1.0).plus(Moments(count=1, mean=None, squares=None, low=0, high=2)).deviation is None
    assert NumberFacet(dimension="plain", files=1, low=0, high=0, mean=None, deviation=None).mean is None
