"""Where files stand: the catalogue's counts and the journal's, joined."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.domain.acquisition import JournalState
from beamkeeper.domain.ledger import DirectoryCount, DirectoryTally, ledger_lines, ledger_total

J = JournalState


def stored(path: str, files: int, verified: int, suspect: int = 0) -> DirectoryCount:
    return DirectoryCount(path=path, files=files, bytes=10 * files, verified=verified, suspect=suspect)


def tally(path: str, state: JournalState, files: int, *, was_available: bool = False) -> DirectoryTally:
    return DirectoryTally(path=path, state=state, was_available=was_available, files=files, bytes=0)


def test_a_directory_has_one_line_with_what_both_say_of_it() -> None:
    (line,) = ledger_lines(
        [stored("data/a", 5, 4, 1)],
        [
            tally("data/a", J.GROWING, 2),
            tally("data/a", J.GROWING, 1, was_available=True),
            tally("data/a", J.QUARANTINED, 3),
            tally("data/a", J.SKIPPED, 7),
            *(tally("data/a", state, 1) for state in (J.CANDIDATE, J.READY, J.STAGED, J.STORED, J.VANISHED)),
        ],
    )
    assert line.model_dump(exclude={"path_b64"}) == {
        "path": "data/a",
        "arrived": 5 + 2 + 3 + 7 + 5,
        "stored": 5,
        "verified": 4,
        "missing": 5,
        "growing": 3,
        "quarantined": 3,
        "skipped": 7,
        "suspect": 1,
        "bytes": 50,
    }


def test_lines_are_in_the_order_of_the_bytes_of_directories() -> None:
    lines = ledger_lines([stored("data/b", 1, 1), stored("data", 1, 1)], [tally("data/a", J.CANDIDATE, 1)])
    assert [line.path for line in lines] == ["data", "data/a", "data/b"]


def test_somebody_is_needed_where_not_all_is_verified() -> None:
    good, skipped, unverified, grown, missing, changed = ledger_lines(
        [stored(f"data/{name}", 2 if name == "c" else 1, 1) for name in "abcdf"],
        [
            tally("data/b", J.SKIPPED, 4),
            tally("data/d", J.GROWING, 1, was_available=True),
            tally("data/e", J.CANDIDATE, 1),
            tally("data/f", J.READY, 1, was_available=True),
        ],
    )
    lines = (good, skipped, unverified, grown, missing, changed)
    assert [line.needs_somebody for line in lines] == [False, False] + [True] * 4


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(J), st.integers(0, 9))),
)
def test_the_total_is_the_sum_and_nothing_that_arrived_is_in_no_column(
    counts: list[tuple[str, int]], others: list[tuple[str, JournalState, int]]
) -> None:
    by_path = {path: stored(path, files, files) for path, files in counts}
    lines = ledger_lines(by_path.values(), [tally(path, state, files) for path, state, files in others])
    total = ledger_total(lines)
    assert total.arrived == total.stored + total.missing + total.growing + total.quarantined + total.skipped
    assert total.arrived == sum(line.arrived for line in lines)
    assert total.bytes == 10 * sum(count.files for count in by_path.values())
