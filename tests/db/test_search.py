"""The search index equals what a count from nothing says, whatever happened to the files."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from beamkeeper.db import CatalogTransaction
from beamkeeper.db.base import new_uid
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.search import counting
from beamkeeper.db.search.tables import (
    NO_QUANTITY,
    SearchCountRow,
    SearchDimensionRow,
    SearchExperimentRow,
    SearchFacetRow,
    SearchFileRow,
    SearchKeyRow,
    SearchStatRow,
    SearchTermRow,
    SearchTextRow,
)
from beamkeeper.domain.experiments import NewExperimentType
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.terms import TEXT, terms_of, words_of
from beamkeeper.testing.catalogue import Catalogue, new_file


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        yield made


def register(
    catalogue: Catalogue,
    path: str,
    metadata: Any = None,
    *,
    experiment: str = "coffee",
    content: bytes = b"1",
    n: int = 1,
) -> UUID:
    uid = catalogue.experiment(experiment).uid
    new = new_file(path, experiment_uid=uid, metadata=metadata or {}, content=content, number=n)
    with catalogue.database.write() as tx:
        (answer,) = tx.files.register([new], by="test")
    assert answer.file_uid is not None
    return answer.file_uid


def indexed(catalogue: Catalogue, limit: int = 1000) -> int:
    """Let the index follow to the end; return how many steps that took."""
    steps = 0
    while True:
        with catalogue.database.write() as tx:
            if not tx.search.step(limit):
                return steps
        steps += 1


def held(tx: CatalogTransaction) -> dict[str, Any]:
    """Return everything that the index says, with names in place of its numbers."""
    session = tx.session
    keys = {row.id: row.key for row in session.scalars(select(SearchKeyRow))}
    dimensions = {row.id: row.name for row in session.scalars(select(SearchDimensionRow))}
    dimensions |= {number: name for name, number in NO_QUANTITY.items()}
    experiments = {row.id: row.uid for row in session.scalars(select(SearchExperimentRow))}
    files = {row.id: row.uid for row in session.scalars(select(FileRow))}
    terms = {
        (files[t.file_id], keys[t.key_id], t.ordinal, dimensions[t.dimension], t.num, t.text)
        for t in session.scalars(select(SearchTermRow))
    }
    stats: dict[Any, Any] = {}
    for s in session.scalars(select(SearchStatRow)):
        if s.terms:
            name = (experiments[s.experiment_id], keys[s.key_id], dimensions[s.dimension])
            if dimensions[s.dimension] == TEXT:
                stats[name] = (s.terms, s.other)
            else:
                mean = (s.shift or 0) + (s.total or 0) / s.terms
                stats[name] = (s.terms, pytest.approx(mean, rel=1e-6, abs=1e-3), s.low, s.high)
    return {
        "experiments": {
            (row.uid, row.files, row.bytes) for row in session.scalars(select(SearchExperimentRow)) if row.files
        },
        "files": {files[row.file_id]: row.is_partial for row in session.scalars(select(SearchFileRow))},
        "terms": terms,
        "counts": {
            (experiments[c.experiment_id], c.kind, c.name): (c.files, c.bytes)
            for c in session.scalars(select(SearchCountRow))
            if c.files
        },
        "facets": {
            (experiments[f.experiment_id], keys[f.key_id], f.text): f.files
            for f in session.scalars(select(SearchFacetRow))
            if f.files
        },
        "stats": stats,
        "words": {files[row.file_id]: words_found(tx, row.file_id) for row in session.scalars(select(SearchTextRow))},
    }


def words_found(tx: CatalogTransaction, file_id: int) -> set[str]:
    """Return the words by which full text finds a file: of those that any file has."""
    if tx.session.get_bind().dialect.name == "postgresql":
        found = tx.session.execute(
            text("SELECT unnest(tsvector_to_array(document)) FROM search_texts WHERE file_id = :id"), {"id": file_id}
        )
        return {word for (word,) in found if not word.startswith("#")}
    row = tx.session.scalars(select(SearchTextRow).where(SearchTextRow.file_id == file_id)).one()
    return {
        word
        for word in row.document.split()
        if tx.session.execute(
            text("SELECT 1 FROM search_words WHERE search_words MATCH :word AND rowid = :id"),
            {"word": f'document : "{word}" AND experiment_id : "{row.experiment_id}"', "id": file_id},
        ).first()
    }


def counted(tx: CatalogTransaction) -> dict[str, Any]:
    """Return what the index has to say, from the files themselves."""
    rows = tx.session.execute(
        select(FileRow, VersionRow)
        .join(VersionRow, (VersionRow.file_id == FileRow.id) & (VersionRow.number == FileRow.number))
        .where(FileRow.deleted_at.is_(None))
    ).all()
    experiments: defaultdict[UUID, list[int]] = defaultdict(lambda: [0, 0])
    counts: defaultdict[tuple[UUID, int, str], list[int]] = defaultdict(lambda: [0, 0])
    facets: Counter[tuple[UUID, str, str]] = Counter()
    numbers: defaultdict[tuple[UUID, str, str], list[float]] = defaultdict(list)
    terms, partial, words = set(), {}, {}
    for file, version in rows:
        found = terms_of(file.metadata_)
        partial[file.uid] = found.is_partial
        words[file.uid] = set(words_of(file.path_shown, file.metadata_))
        suffix = "tif" if file.path_shown.lower().endswith(".tif") else ""
        of = ((1, file.path_shown.rpartition("/")[0]), (2, suffix), (3, f"{version.modified_at:%Y-%m-%d}"))
        for tally in (experiments[file.experiment_uid], *(counts[file.experiment_uid, *name] for name in of)):
            tally[0] += 1
            tally[1] += version.size
        for term in found.terms:
            terms.add((file.uid, *term))
            name = (file.experiment_uid, term.key, term.dimension)
            if term.dimension == TEXT:
                assert term.text is not None
                facets[file.experiment_uid, term.key, term.text] += 1
                numbers[name].append(0.0)
            else:
                assert term.num is not None
                numbers[name].append(term.num)
    return {
        "experiments": {(uid, *tally) for uid, tally in experiments.items()},
        "files": partial,
        "terms": terms,
        "counts": {name: tuple(tally) for name, tally in counts.items()},
        "facets": dict(facets),
        "stats": {
            name: (len(found), 0) if name[2] == TEXT else (len(found), statistics.fmean(found), min(found), max(found))
            for name, found in numbers.items()
        },
        "words": words,
    }


def check(catalogue: Catalogue) -> None:
    with catalogue.database.read() as tx:
        assert counted(tx) == held(tx)


NUMBERS = st.one_of(st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9), st.sampled_from([0, 1, 12.4]))
SCALARS = st.one_of(NUMBERS, st.booleans(), st.none(), st.text("aBß, é\U0001f52c", max_size=4))
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=4),
    st.fixed_dictionaries({"value": NUMBERS, "unit": st.sampled_from(["keV", "eV", "m", "?"])}),
    st.fixed_dictionaries({"b": SCALARS}),
)
METADATA = st.dictionaries(st.sampled_from(["a", "energy", "sample", "x.y", ""]), VALUES, max_size=4)
PATHS = st.sampled_from(["data/a.tif", "data/b.TIF", "data/s/c", "d.0001"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["register", "register", "annotate", "hide", "restore", "index"]),
        PATHS,
        st.sampled_from(["coffee", "tea"]),
        METADATA,
    ),
    min_size=2,
    max_size=10,
)


def take(catalogue: Catalogue, step: tuple[str, str, str, Any], known: dict[tuple[str, str], tuple[UUID, int]]) -> None:
    do, path, experiment, metadata = step
    uid, number = known.get((experiment, path), (None, 0))
    where = FileQuery(experiment_uid=catalogue.experiment(experiment).uid, glob=path)
    if do == "register":
        content = bytes(number + 1)
        uid = register(catalogue, path, metadata, experiment=experiment, content=content, n=number + 1)
        known[experiment, path] = (uid, number + 1)
    elif do == "index":
        with catalogue.database.write() as tx:
            tx.search.step(2)
    elif uid is not None:
        with catalogue.database.write() as tx:
            if do == "annotate":
                tx.files.set_metadata(uid, metadata, by="me")
            elif do == "hide":
                tx.files.hide(where, by="test")
            else:
                tx.files.bring_back(where)


@settings(
    max_examples=25,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_the_index_equals_a_count_from_nothing(catalogue: Catalogue, steps: list[tuple[str, str, str, Any]]) -> None:
    known: dict[tuple[str, str], tuple[UUID, int]] = {}
    with catalogue.database.write() as tx:  # examples share the database: what was there before counts too
        for file in tx.session.scalars(select(FileRow)):
            tx.files.hide(FileQuery(experiment_uid=file.experiment_uid), by="test")
        for uid, number, experiment_uid, path in tx.session.execute(
            select(FileRow.uid, FileRow.number, FileRow.experiment_uid, FileRow.path_shown)
        ):
            name = "coffee" if experiment_uid == catalogue.experiment("coffee").uid else "tea"
            known[name, path] = (uid, number)
    for step in steps:
        take(catalogue, step, known)
    indexed(catalogue, limit=3)
    check(catalogue)
    with catalogue.database.write() as tx:
        tx.search.rebuild()
    indexed(catalogue)
    check(catalogue)


def test_a_step_that_is_cut_off_has_not_happened(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    register(catalogue, "data/a.tif", {"sample": "Ag"})
    indexed(catalogue)
    uid = register(catalogue, "data/b.tif", {"sample": "Au"})
    with catalogue.database.write() as tx:
        tx.files.hide(FileQuery(experiment_uid=catalogue.experiment().uid, glob="data/a.tif"), by="test")
    with catalogue.database.read() as tx:
        before = held(tx)

    def cut(_: object) -> None:
        raise RuntimeError("cut off")

    with monkeypatch.context() as patched:
        patched.setattr(counting.Counting, "_write_numbers", cut)
        with pytest.raises(RuntimeError):
            indexed(catalogue)
    with catalogue.database.read() as tx:
        assert held(tx) == before
        assert tx.search.lag()[0] == 2
    indexed(catalogue)
    check(catalogue)
    with catalogue.database.read() as tx:
        assert held(tx)["files"] == {uid: False}


def test_a_large_change_is_taken_in_pieces(catalogue: Catalogue) -> None:
    for number in range(7):
        register(catalogue, f"data/{number}.tif", {"n": number})
    indexed(catalogue)
    with catalogue.database.write() as tx:
        assert tx.search.rebuild() == 7
    assert indexed(catalogue, limit=3) == 3
    check(catalogue)


def test_texts_beyond_the_first_many_are_counted_together(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MAX_TEXTS", 2)
    for number, name in enumerate(["Ag", "Au", "Cu", "Cu", "Ag", "Fe"]):
        register(catalogue, f"data/{number}.tif", {"sample": name})
    indexed(catalogue, limit=4)
    coffee = catalogue.experiment().uid
    with catalogue.database.write() as tx:
        assert held(tx)["facets"] == {(coffee, "sample", "Ag"): 2, (coffee, "sample", "Au"): 1}
        assert held(tx)["stats"] == {(coffee, "sample", TEXT): (6, 3)}
        tx.files.hide(FileQuery(experiment_uid=coffee, glob="data/1.tif"), by="test")
        tx.files.hide(FileQuery(experiment_uid=coffee, glob="data/2.tif"), by="test")
    register(catalogue, "data/7.tif", {"sample": "Au"})
    indexed(catalogue)
    with catalogue.database.read() as tx:
        assert held(tx)["facets"] == {(coffee, "sample", "Ag"): 2, (coffee, "sample", "Au"): 1}
        assert held(tx)["stats"] == {(coffee, "sample", TEXT): (5, 2)}


def test_numbers_that_no_double_can_add_up_have_no_mean_and_keep_their_range(catalogue: Catalogue) -> None:
    for number, value in enumerate([1.7e308, -1.7e308, 5.0]):
        register(catalogue, f"data/{number}.tif", {"n": value})
    indexed(catalogue)
    with catalogue.database.read() as tx:
        row = tx.session.scalars(select(SearchStatRow)).one()
        assert (row.terms, row.low, row.high, row.squares) == (3, -1.7e308, 1.7e308, None)


def test_an_experiment_type_names_the_keys_that_are_indexed(catalogue: Catalogue) -> None:
    coffee = catalogue.experiment().uid
    register(catalogue, "data/a.tif", {"sample": "Ag", "note": "n"})
    indexed(catalogue)
    with catalogue.database.write() as tx:
        tx.experiments.add_type(NewExperimentType(name="xpcs", index_keys=["sample"]))
        assert tx.search.follow_types() == 0
        tx.session.execute(text("UPDATE experiments SET type = 'xpcs'"))
        assert tx.search.follow_types() == 1
    indexed(catalogue)
    with catalogue.database.write() as tx:
        assert {term[1] for term in held(tx)["terms"]} == {"sample"}
        assert (coffee, "note", TEXT) not in held(tx)["stats"]
        assert tx.search.follow_types() == 0


def test_a_source_that_was_touched_counts_on_another_day(catalogue: Catalogue) -> None:
    uid = register(catalogue, "data/a.tif")
    indexed(catalogue)
    new = new_file(
        "data/a.tif",
        experiment_uid=catalogue.experiment().uid,
        content=b"1",
        version_uid=new_uid(),
        modified_at="2026-04-02T00:00:00Z",
    )
    with catalogue.database.write() as tx:
        (answer,) = tx.files.register([new], by="test")
    assert answer.file_uid == uid
    indexed(catalogue)
    check(catalogue)
    with catalogue.database.read() as tx:
        assert (catalogue.experiment().uid, 3, "2026-04-02") in held(tx)["counts"]
