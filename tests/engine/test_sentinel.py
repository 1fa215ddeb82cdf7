"""Of which files a sentinel speaks."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from beamkeeper.domain.acquisition import NewDaq
from beamkeeper.engine.sentinel import Sentinels


def covered(pattern: str, sentinel: bytes, *paths: bytes) -> set[bytes]:
    sentinels = Sentinels(pattern)
    sentinels.meet(sentinel)
    return {path for path in paths if sentinels.covers(path)}


def test_a_sentinel_speaks_of_its_stem_with_any_ending_and_of_what_is_in_the_directory_of_that_name() -> None:
    meant = (b"d/scan_1", b"d/scan_1.h5", b"d/scan_1.tar.gz", b"d/scan_1/a.tif", b"d/scan_1/deep/b.tif")
    others = (b"d/scan_10.h5", b"d/scan_12/a.tif", b"scan_1.h5", b"e/scan_1.h5", b"d/xscan_1.h5", b"d/e/scan_1.h5")
    assert covered("*.done", b"d/scan_1.done", *meant, *others) == set(meant)


def test_a_stem_may_have_an_ending_of_its_own() -> None:
    assert covered("*.done", b"a.h5.done", b"a.h5", b"a.h5.log", b"a.txt") == {b"a.h5", b"a.h5.log"}


def test_a_beginning_counts_as_well_as_an_ending() -> None:
    assert covered("ok_*.txt", b"ok_7.txt", b"7", b"7.h5", b"ok_7.h5") == {b"7", b"7.h5"}


def test_a_sentinel_without_a_star_speaks_of_its_whole_directory() -> None:
    meant = (b"d/a", b"d/e/b")
    assert covered("FINISHED", b"d/FINISHED", *meant, b"a", b"dd/a", b"d") == set(meant)
    assert covered("FINISHED", b"FINISHED", b"a", b"d/e/b") == {b"a", b"d/e/b"}


def test_a_sentinel_never_speaks_of_sentinels() -> None:
    assert covered("*.done", b"a.done", b"a.done", b"a/b.done", b"a.b.done") == set()
    assert covered("END", b"END", b"END", b"d/END") == set()


def test_other_names_say_nothing() -> None:
    sentinels = Sentinels("*.done")
    for path in (b"a.tif", b".done", b"a.done.tif"):
        sentinels.meet(path)
    assert not sentinels
    nobody = Sentinels(None)
    nobody.meet(b"a.done")
    assert not nobody


@pytest.mark.parametrize("pattern", ["*", "*.*", "a/b.done", "scan?.done", "[ab].done", ""])
def test_a_pattern_that_nobody_could_explain_is_refused(pattern: str) -> None:
    uid = "0198f0a4-0000-7000-8000-000000000000"
    assert NewDaq.model_validate({"experiment_uid": uid, "path": "d", "sentinel": "*.done"}).sentinel == "*.done"
    with pytest.raises(ValidationError, match="sentinel"):
        NewDaq.model_validate({"experiment_uid": uid, "path": "d", "sentinel": pattern})
