"""Links between files on both databases: no cycle, no name of what one may not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import ConflictError, NotFoundError
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.provenance import MAX_NODES, NewDerivation, Provenance, SourceRef, Towards
from beamkeeper.domain.users import Reach
from beamkeeper.testing.catalogue import Catalogue, new_file

EVERYTHING = Reach(is_all=True)


@pytest.fixture
def catalogue(database_url: str) -> Iterator[Catalogue]:
    with closing(Catalogue(database_url)) as made:
        yield made


def fill(catalogue: Catalogue, *paths: str, experiment: str = "coffee", number: int = 1) -> list[UUID]:
    uid = catalogue.experiment(experiment).uid
    files = [new_file(path, experiment_uid=uid, number=number, content=b"x" * number) for path in paths]
    with catalogue.database.write() as tx:
        return [answer.file_uid for answer in tx.files.register(files, by="service") if answer.file_uid is not None]


def derive(catalogue: Catalogue, derived: UUID, *sources: UUID | SourceRef, version: int | None = None) -> int:
    refs = [one if isinstance(one, SourceRef) else SourceRef(file_uid=one) for one in sources]
    with catalogue.database.write() as tx:
        return tx.derivations.add(
            derived, NewDerivation(version=version, sources=refs, job="reduce", stage="average"), by="ada"
        )


def walk(catalogue: Catalogue, uid: UUID, towards: Towards = Towards.SOURCES, reach: Reach = EVERYTHING) -> Provenance:
    with catalogue.database.read() as tx:
        return tx.derivations.walk(uid, towards, reach)


def links(found: Provenance) -> set[tuple[str | None, str | None]]:
    """Return links by path; None where a file is hidden."""
    paths = [file.file.path if file.file else None for file in found.files]
    return {(paths[link.derived], paths[link.source]) for link in found.links}


def test_a_chain_is_followed_down_to_the_raw_frames_and_back_up(catalogue: Catalogue) -> None:
    raw1, raw2, mean, plot = fill(catalogue, "data/raw1", "data/raw2", "analysis/mean", "analysis/plot")
    assert derive(catalogue, mean, raw1, raw2) == 2
    assert derive(catalogue, mean, raw1) == 0
    assert derive(catalogue, plot, mean, raw1) == 2
    down = walk(catalogue, plot)
    chain = {
        ("analysis/plot", "analysis/mean"),
        ("analysis/plot", "data/raw1"),
        ("analysis/mean", "data/raw1"),
        ("analysis/mean", "data/raw2"),
    }
    assert links(down) == chain
    assert down.files[0].file is not None
    assert (down.files[0].number, down.files[0].file.path, down.is_cut) == (0, "analysis/plot", False)
    assert {(link.job, link.stage, link.recorded_by) for link in down.links} == {("reduce", "average", "ada")}
    assert links(walk(catalogue, raw2, Towards.RESULTS)) == {
        ("analysis/mean", "data/raw2"),
        ("analysis/plot", "analysis/mean"),
    }
    assert links(walk(catalogue, raw1)) == set()


def test_versions_are_what_is_linked(catalogue: Catalogue) -> None:
    a, b = fill(catalogue, "data/a", "data/b")
    derive(catalogue, b, a)
    fill(catalogue, "data/a", number=2)
    derive(catalogue, a, b, version=2)
    found = walk(catalogue, a)
    assert [(one.file.path, one.file.version, one.file.is_newest) for one in found.files if one.file] == [
        ("data/a", 2, True),
        ("data/b", 1, True),
        ("data/a", 1, False),
    ]
    with pytest.raises(ConflictError):
        derive(catalogue, a, b, version=1)
    with pytest.raises(NotFoundError, match="version 3"):
        derive(catalogue, b, SourceRef(file_uid=a, version=3))
    with pytest.raises(NotFoundError):
        derive(catalogue, b, new_uid())


@given(edges=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_recorded_there_is_no_cycle(catalogue: Catalogue, edges: Sequence[tuple[int, int]]) -> None:
    experiment = new_uid()
    files = [new_file(f"data/{i}", experiment_uid=experiment) for i in range(5)]
    with catalogue.database.write() as tx:
        uids = [answer.file_uid for answer in tx.files.register(files, by="service")]
    below: dict[int, set[int]] = {i: {i} for i in range(5)}
    for derived, source in edges:
        is_cycle = derived in below[source]
        first, second = uids[derived], uids[source]
        assert first is not None
        assert second is not None
        try:
            derive(catalogue, first, second)
        except ConflictError:
            assert is_cycle
            continue
        assert not is_cycle
        for start, reached in below.items():
            if derived in reached:
                below[start] = reached | below[source]


def test_of_what_one_may_not_see_it_is_told_only_that_it_is_there(catalogue: Catalogue) -> None:
    (raw,) = fill(catalogue, "data/raw")
    (secret,) = fill(catalogue, "data/secret", experiment="tea")
    (shown,) = fill(catalogue, "analysis/result")
    derive(catalogue, secret, raw)
    derive(catalogue, shown, secret)
    within = Reach(experiments=frozenset({catalogue.experiment().uid}))
    down = walk(catalogue, shown, reach=within)
    assert links(down) == {("analysis/result", None)}, "nor what is behind it"
    assert [(one.is_hidden, one.file is None) for one in down.files] == [(False, False), (True, True)]
    up = walk(catalogue, raw, Towards.RESULTS, within)
    assert links(up) == {(None, "data/raw")}
    assert [(link.job, link.stage, link.recorded_by) for link in up.links] == [("", "", "")]
    for text in ("secret", str(secret), "tea"):
        assert text not in down.model_dump_json() + up.model_dump_json()
    with catalogue.database.write() as tx:
        tx.files.hide(FileQuery(experiment_uid=catalogue.experiment().uid, glob="data/raw"), by="me")
    assert links(walk(catalogue, shown)) == {("analysis/result", "data/secret"), ("data/secret", None)}


def test_a_wide_answer_is_cut_and_says_so(catalogue: Catalogue) -> None:
    raw = fill(catalogue, *(f"data/{i:05}" for i in range(MAX_NODES)))
    (mean,) = fill(catalogue, "analysis/mean")
    derive(catalogue, mean, *raw[:-1])
    whole = walk(catalogue, mean)
    assert (len(whole.files), len(whole.links), whole.is_cut) == (MAX_NODES, MAX_NODES - 1, False)
    derive(catalogue, mean, raw[-1])
    cut = walk(catalogue, mean)
    assert (len(cut.files), len(cut.links), cut.is_cut) == (MAX_NODES, MAX_NODES - 1, True)
