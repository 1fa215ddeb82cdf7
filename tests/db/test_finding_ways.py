"""Which way searches go, on both databases: what is read for it, and that it tells nobody of files of others."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from beamkeeper.db.finding import leading, portions, sources
from beamkeeper.db.finding import search as searching
from beamkeeper.db.finding.indexed import Index, asking
from beamkeeper.db.search import counting
from beamkeeper.domain.datasets import NewDataset
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.runs import NewRun
from beamkeeper.domain.users import Action, Reach, Role, reach
from beamkeeper.testing.catalogue import Catalogue
from beamkeeper.testing.queries import NOW
from db.searched import ALL, fill, found, index, paths, simple


def test_what_others_call_their_runs_and_datasets_is_not_told_by_what_was_looked_at(catalogue: Catalogue) -> None:
    fill(catalogue, "mine", [simple("data/a")])
    fill(catalogue, "others", [simple("data/b")])
    index(catalogue)
    others = catalogue.experiment("others").uid
    [b] = found(catalogue, experiment_uid=others)
    with catalogue.database.write() as tx:
        tx.runs.add_files(tx.runs.add(NewRun(experiment_uid=others, name="secret"), by="x").uid, [b.uid])
        dataset = tx.datasets.add(NewDataset(experiment_uid=others, name="secret"), owner="x")
        tx.datasets.add_files(dataset.uid, [b.uid], by="x")
    index(catalogue)
    within = reach(catalogue.caller(Role.USER, "mine"), Action.FILE_READ)
    for field in ("run", "dataset"):
        query = FileQuery(query=f"{field} = secret")
        with catalogue.database.read() as tx:
            page = tx.files.find(query, within)
            assert (page.items, page.searched) == ((), 0), field
            assert tx.files.find(query, ALL).searched == 1


def test_a_walk_tells_nobody_how_many_files_there_are_of_others(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "_WALKED_EXPERIMENTS", 0)
    monkeypatch.setattr(searching, "BUDGET", 5)
    fill(catalogue, "before", [simple(f"data/{i}") for i in range(60)])
    fill(catalogue, "mine", [simple("data/a"), simple("data/b", n=1)])
    fill(catalogue, "after", [simple(f"data/{i}") for i in range(60)])
    index(catalogue)
    mine = reach(catalogue.caller(Role.USER, "mine"), Action.FILE_READ)
    for query in ("not n = 1", "not n = 1 and modified > -2d"):
        with catalogue.database.read() as tx:
            page = tx.files.find(FileQuery(query=query), mine)
            nobody = tx.files.find(FileQuery(query=query), Reach())
        assert (paths(page.items), page.next, page.is_partial) == (["data/a"], None, False)
        assert page.searched <= 2
        assert (nobody.items, nobody.next, nobody.searched) == ((), None, 0)


@pytest.mark.parametrize("query", ["not n = 1", 'text = "odd"'])
@pytest.mark.parametrize("limit", [1, 4, 100])
def test_a_walk_reads_blocks_forwards_and_gives_the_newest_first(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, query: str, limit: int
) -> None:
    for most in ("_WALKED_EXPERIMENTS", "FEW", "SOME", "MANY"):
        monkeypatch.setattr(leading, most, 0)
    for many in ("TRIAL", "LONG"):
        monkeypatch.setattr(leading, many, 1)  # so that a stretch ends within a block
    monkeypatch.setattr(portions, "BLOCK", 7)
    statements: list[str] = []
    event.listen(catalogue.database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    names = [f"data/odd {i}" if i % 2 else f"data/even {i}" for i in range(40)]
    fill(catalogue, "one", [simple(name, n=(i + 1) % 2) for i, name in enumerate(names)])
    fill(catalogue, "two", [simple(name, n=(i + 1) % 2) for i, name in enumerate(names)])
    index(catalogue)
    odd = [name for name in reversed(names) if "odd" in name]
    assert paths(found(catalogue, query=query, limit=limit)) == odd * 2
    is_postgres = catalogue.database.engine.dialect.name == "postgresql"
    walked = [each for each in statements if "generate_series" in each]
    assert bool(walked) == is_postgres
    assert all("IS true" in each for each in walked if "@@" in each)  # else each block may be asked of the full text


@pytest.mark.parametrize("is_of_one", [False, True])
def test_what_asks_for_the_index_is_made_once_also_for_who_has_no_role_in_an_experiment(
    catalogue: Catalogue, is_of_one: bool
) -> None:
    fill(catalogue, "proprietary", [simple("data/a", n=1)])
    index(catalogue)
    only = catalogue.experiment("proprietary").uid if is_of_one else None
    nobody = Reach(is_open_included=True)
    assert paths(found(catalogue, query="n = 1", experiment_uid=only)) == ["data/a"]
    with catalogue.database.read() as tx:
        page = tx.files.find(FileQuery(query="n = 1", experiment_uid=only), nobody)
    assert (page.items, page.searched) == ((), 0)
    for within in (ALL, nobody):
        once, again = (asking(within, NOW, only, []).statement for _ in range(2))
        assert once is again


@pytest.mark.parametrize("is_indexed", [True, False])
def test_what_was_looked_at_tells_nobody_of_words_of_others_and_of_what_they_register(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, is_indexed: bool
) -> None:
    monkeypatch.setattr(sources, "_RANKED_EXPERIMENTS", 0)  # as of somebody who has more experiments than are named
    fill(catalogue, "mine", [simple("data/a")])
    index(catalogue)
    fill(catalogue, "others", [simple(f"data/secret {i}", n=7) for i in range(9)])
    if is_indexed:
        index(catalogue)
    mine = reach(catalogue.caller(Role.USER, "mine"), Action.FILE_READ)
    for query in ('text = "secret"', 'name = "secret 3"', "n = 7"):
        with catalogue.database.read() as tx:
            page = tx.files.find(FileQuery(query=query), mine)
            everybody = tx.files.find(FileQuery(query=query), ALL)
        assert (page.items, page.searched) == ((), 0), query
        assert min(len(everybody.items), everybody.searched) > 0, query


def test_words_of_many_files_of_few_experiments_are_looked_up_in_their_newest(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "_PAGE", 0)
    monkeypatch.setattr(leading, "ALONG", 1)
    listed: list[str] = []
    if catalogue.database.engine.dialect.name == "postgresql":

        @event.listens_for(catalogue.database.engine, "before_cursor_execute")
        def note(_c: object, _cur: object, statement: str, *_more: object) -> None:
            listed.extend([statement] if re.match("SELECT anon_1.file_id.* @@ ", statement, re.DOTALL) else [])

    fill(catalogue, "mine", [simple(f"data/{i}", title="in vacuum" if i % 3 else "in air") for i in range(40)])
    fill(catalogue, "others", [simple(f"data/{i}", title="in helium") for i in range(40)])
    index(catalogue)
    mine = reach(catalogue.caller(Role.USER, "mine"), Action.FILE_READ)
    in_vacuum = [f"data/{i}" for i in range(39, -1, -1) if i % 3]
    assert paths(found(catalogue, mine, query='text = "vacuum"', limit=7)) == in_vacuum
    with catalogue.database.read() as tx:
        page = tx.files.find(FileQuery(query='text = "helium"', limit=1), mine)
    # How many have the words is not told by where the files that were looked at end.
    assert (page.items, page.next, page.searched) == ((), None, 0)
    assert listed == []


def test_a_second_condition_is_counted_no_further_than_it_is_of_use(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    count = leading.Leading._count

    def note(self: leading.Leading, selects: Any, most: int) -> int:
        counted.append(most)
        return count(self, selects, most)

    monkeypatch.setattr(leading.Leading, "_count", note)
    monkeypatch.setattr(leading, "ENOUGH", 0)
    monkeypatch.setattr(leading, "_WALKED_EXPERIMENTS", 0)
    fill(catalogue, "one", [simple(f"data/{i}", n=i % 20, m=i % 2) for i in range(60)])
    index(catalogue)
    assert len(found(catalogue, query="n = 3 and m = 1", limit=60)) == 3
    assert counted == [leading.FEW, 3 * leading.BROADER]


def test_what_the_index_has_told_is_not_looked_up_again(catalogue: Catalogue) -> None:
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if " AS met" in statement:
            asked.append(statement)

    fill(catalogue, "one", [simple(f"data/{i}", n=i % 3, name="Ag") for i in range(9)])
    index(catalogue)
    event.listen(catalogue.database.engine, "before_cursor_execute", note)
    assert len(found(catalogue, query="n = 1", limit=9)) == 3
    assert len(found(catalogue, query="n > 0 and n < 2", limit=9)) == 3
    event.remove(catalogue.database.engine, "before_cursor_execute", note)
    once, between = asked
    assert "search_files" not in once  # only what finds the files, which are all in the index
    assert once.count("FROM search_terms") == 1 < between.count("FROM search_terms")  # lists have to be looked at


def test_the_newest_of_each_experiment_are_read_from_the_index_on_every_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite: where it goes through the terms first, it looks for the oldest that is wanted at each of them."""
    monkeypatch.setattr(leading, "FEW", -1)
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "LEFT OUTER JOIN search_terms" in statement:
            asked.append((statement, values))

    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:
        for name in ("one", "two"):
            fill(catalogue, name, [simple(f"data/{i}", n=1) for i in range(9)])
        index(catalogue)
        event.listen(catalogue.database.engine, "before_cursor_execute", note)
        assert len(found(catalogue, query="n = 1", limit=5)) == 18
        event.remove(catalogue.database.engine, "before_cursor_execute", note)
        assert len(asked) >= 2
        with catalogue.database.engine.connect() as connection:
            for statement, values in asked:
                plan = [step[3] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
                steps = [step for step in plan if "search_experiments" in step or "search_terms USING" in step]
                assert "search_experiments" in steps[0], plan
                assert steps[1].endswith("LEFT-JOIN"), plan


def test_postgresql_reads_one_value_and_all_ranges_by_value_and_the_ranges_of_few_by_experiment(
    postgres_url: str,
) -> None:
    with closing(Catalogue(postgres_url)) as catalogue:
        for name in ("one", "two", "three"):
            files = [simple(f"data/{i}", n=i, sample=f"Ag-{i:03d}", many=i % 2) for i in range(300)]
            fill(catalogue, name, files)
        index(catalogue)
        with catalogue.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
        mine = reach(catalogue.caller(Role.USER, "one"), Action.FILE_READ)
        by_value = {"n": "ix_search_terms_num_value", "sample": "ix_search_terms_text_value"}
        by_experiment = {"n": "ix_search_terms_num", "sample": "ix_search_terms_text"}
        for asked, all_, own in (
            ("n = 17", by_value["n"], by_value["n"]),
            ("sample = Ag-017", by_value["sample"], by_value["sample"]),
            ("sample in (Ag-017, Ag-018)", by_value["sample"], by_value["sample"]),
            ("n > 17 and n < 19", by_value["n"], by_experiment["n"]),
            ('sample ~ "Ag-01*"', by_value["sample"], by_experiment["sample"]),
        ):
            assert (indexes(catalogue, asked, ALL), indexes(catalogue, asked, mine)) == ({all_}, {own}), asked
        # The narrower leads, by value or by experiment, and of each of its files the other is looked up by value.
        assert indexes(catalogue, "n = 17 and many = 1", mine) == {by_value["n"]}
        assert by_value["n"] in indexes(catalogue, "sample > Ag-290 and many = 1", mine)


def test_experiments_of_texts_are_known_by_what_they_count_and_of_the_others_by_the_index(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MAX_TEXTS", 1)
    fill(catalogue, "counted", [simple("data/a", sample="Au-1", n=1)])
    fill(catalogue, "other", [simple("data/b", sample="Ag-1", n=1), simple("data/c", sample="Au-2", n=1)])
    fill(catalogue, "neither", [simple("data/d", sample="Ag-1", n=1), simple("data/e", sample="Ag-2", n=1)])
    index(catalogue)
    narrowed: list[int] = []
    along = leading.Leading._along

    def note(self: leading.Leading, index: Index) -> Any:
        narrowed.append(len(index.ids))
        return along(self, index)

    monkeypatch.setattr(leading.Leading, "_along", note)
    monkeypatch.setattr(leading, "FEW", -1)
    assert paths(found(catalogue, query='sample ~ "Au-*" and n > 0')) == ["data/c", "data/a"]
    assert narrowed == [2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((9, 1_000, 3), ([], 4)),  # all are counted, and more than lead
        ((9, 1_000, 4), ([4], 4)),  # not more, and too few to tell
        ((9, 1, 99), ([], 4)),
        ((1, 3, 99), ([], 5)),  # one text of each is counted: of the others as many are taken to begin so
        ((1, 3, 4), ([], 5)),
        ((1, 4, 99), ([99], 4)),
    ],
)
def test_how_many_begin_so_is_told_by_the_texts_that_are_counted_where_those_are_enough(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, given: tuple[int, int, int], expected: Any
) -> None:
    texts, sure, few = given
    monkeypatch.setattr(counting, "MAX_TEXTS", texts)
    monkeypatch.setattr(leading, "SURE", sure)
    monkeypatch.setattr(leading, "FEW", few)
    read: list[int] = []
    told: list[int] = []
    count, files = leading.Leading._count, leading.Leading._files

    def note(self: leading.Leading, selects: Any, most: int) -> int:
        read.append(most)
        return count(self, selects, most)

    def tell(self: leading.Leading, way: Any, within: Index, most: int) -> int:
        told.append(files(self, way, within, most))
        return told[-1]

    monkeypatch.setattr(leading.Leading, "_count", note)
    monkeypatch.setattr(leading.Leading, "_files", tell)
    fill(catalogue, "one", [simple("data/a", sample="Au-1"), simple("data/b", sample="Au-1")])
    fill(catalogue, "one", [simple("data/c", sample="Ag-1")])
    fill(catalogue, "two", [simple("data/d", sample="Au-1"), simple("data/e", sample="Au-2")])
    index(catalogue)
    assert paths(found(catalogue, query='sample ~ "Au-*"')) == ["data/e", "data/d", "data/b", "data/a"]
    assert (read[:1], told[0]) == expected


def test_files_of_some_days_are_found_by_zones_without_a_look_into_each_experiment(catalogue: Catalogue) -> None:
    fill(catalogue, "one", [simple(f"data/{i}", n=1) for i in range(3)])
    index(catalogue)
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked.append(statement)

    event.listen(catalogue.database.engine, "before_cursor_execute", note)
    assert len(found(catalogue, query="modified > -2d and modified < -1h")) == 3
    event.remove(catalogue.database.engine, "before_cursor_execute", note)
    assert sum("search_zones" in statement for statement in asked) == 1
    assert not any("count(" in statement or "EXISTS (SELECT search_files" in statement for statement in asked)


def indexes(catalogue: Catalogue, asked: str, within: Reach) -> set[str]:
    """Return the indexes of terms that PostgreSQL reads for a search, but for that of what each file has."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if "search_terms" in statement and "set_config" not in statement:
            statements.append((statement, values))

    engine = catalogue.database.engine
    event.listen(engine, "before_cursor_execute", note)
    with catalogue.database.read() as tx:
        assert tx.files.find(FileQuery(query=asked), within).items
    event.remove(engine, "before_cursor_execute", note)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")  # which is sooner where files are few
        connection.exec_driver_sql("SET enable_bitmapscan = off")
        plans = [
            line
            for statement, values in statements
            for (line,) in connection.exec_driver_sql(f"EXPLAIN {statement}", values)
        ]
    return set(re.findall(r"Index Only Scan (?:Backward )?using (ix_search_terms_(?:num|text)\w*)", "\n".join(plans)))
