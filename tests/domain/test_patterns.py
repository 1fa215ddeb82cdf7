"""Patterns of paths: what they name, what they match, and that no path keeps them busy."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.patterns import Pattern


@pytest.mark.parametrize(
    ("pattern", "path", "names"),
    [
        ("data/scan{run}_*.tif", "data/scan12_0001.tif", {"run": "12"}),
        ("data/scan{run}_*.tif", "data/scan12_0001.h5", None),
        ("data/{sample}/{run}_?.h5", "data/Ag/12_1_3.h5", {"sample": "Ag", "run": "12_1"}),
        ("*/{run}/x", "a/b/c/x", {"run": "c"}),
        ("{run}", "abc", {"run": "abc"}),
        ("{run}", "a/b", None),
        ("{run}_*", "_x", None),
        ("*{run}*", "aa/b", {"run": "a"}),
        ("d[1]/{run}.\\x0a", "d[1]/7.\\x0a", {"run": "7"}),
    ],
)
def test_a_pattern_names_parts_of_a_path(pattern: str, path: str, names: dict[str, str] | None) -> None:
    assert Pattern.parse(pattern, "run").match(path) == names


@pytest.mark.parametrize(
    "pattern", ["data/*", "{run", "run}", "{}", "{run}{run}", "{1}", "{run.x}", "*a" * 16 + "{run}"]
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidError):
        Pattern.parse(pattern, "run")


@given(st.text(alphabet="ab/", max_size=8), st.lists(st.sampled_from(["a", "b", "/", "*", "?"]), max_size=6))
def test_wildcards_match_as_globs_do(text: str, parts: list[str]) -> None:
    glob = "".join(parts)
    found = Pattern.parse("x{run}y" + glob, "run").match("xay" + text)
    assert (found is not None) == fnmatch.fnmatchcase(text, glob)


@given(st.text(alphabet="ab/_", max_size=12), st.lists(st.sampled_from(["a", "/", "*", "?", "_", "{s}"]), max_size=4))
def test_the_glob_of_a_pattern_matches_all_that_it_matches(text: str, parts: list[str]) -> None:
    if parts.count("{s}") < 2:
        pattern = Pattern.parse("{run}" + "".join(parts), "run")
        assert pattern.match(text) is None or fnmatch.fnmatchcase(text, pattern.glob)


def test_a_path_that_nearly_matches_in_many_ways_is_soon_decided() -> None:
    steps = 0

    class Counting(str):
        def __getitem__(self, key: object) -> str:
            nonlocal steps
            steps += 1
            return str.__getitem__(self, key)  # type: ignore[index]

    assert Pattern.parse("{a}a{b}a{c}a{d}a{e}a{f}a{run}b", "run").match(Counting("a" * 200)) is None
    assert steps < 20 * 2 * 200
