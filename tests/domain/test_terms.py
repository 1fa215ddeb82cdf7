"""What of metadata is indexed."""

from __future__ import annotations

from beamkeeper.domain.names import Metadata
from beamkeeper.domain.terms import (
    BOOLEAN,
    MAX_ITEMS,
    MAX_KEYS,
    PLAIN,
    TEXT,
    TEXT_CHARACTERS,
    Term,
    is_indexed,
    terms_of,
    words_of,
)


def test_scalars_have_terms_by_their_dotted_keys() -> None:
    found = terms_of({"scan": {"id": 7, "motor": "th", "ok": True, "none": None}, "z": 1.5})
    assert found.terms == [
        Term("scan.id", 0, PLAIN, 7.0, None),
        Term("scan.motor", 0, TEXT, None, "th"),
        Term("scan.ok", 0, BOOLEAN, 1.0, None),
        Term("z", 0, PLAIN, 1.5, None),
    ]
    assert not found.is_partial


def test_a_quantity_has_a_term_as_it_is_written_and_one_in_si_units() -> None:
    keys: Metadata = {"energy": {"value": 12.4, "unit": "keV"}, "t": {"value": 3, "unit": "blorps", "more": "x"}}
    plain, si, unknown, more = terms_of(keys).terms
    assert plain == Term("energy", 0, PLAIN, 12.4, None)
    assert (si.key, si.ordinal, si.num) == (
        "energy",
        1,
        terms_of({"energy": {"value": 12400, "unit": "eV"}}).terms[1].num,
    )
    assert unknown == Term("t", 0, PLAIN, 3.0, None)
    assert more == Term("t.more", 0, TEXT, None, "x")
    assert not is_indexed("energy.value", None)


def test_each_different_scalar_of_a_list_has_a_term_up_to_a_number() -> None:
    assert terms_of({"a": [1, 1.0, True, "1", {"b": 1}, None, [2]]}).terms == [
        Term("a", 1, PLAIN, 1.0, None),
        Term("a", 2, BOOLEAN, 1.0, None),
        Term("a", 3, TEXT, None, "1"),
    ]
    long = terms_of({"a": list(range(MAX_ITEMS + 1))})
    assert len(long.terms) == MAX_ITEMS
    assert long.is_partial


def test_what_is_beyond_the_limits_is_told() -> None:
    many = terms_of({f"k{n:03}": n for n in range(MAX_KEYS + 1)})
    assert (len(many.terms), many.is_partial) == (MAX_KEYS, True)
    long_key = terms_of({"k" * 201: 1})
    assert (long_key.terms, long_key.is_partial) == ([], True)
    cut = terms_of({"a": "x" * 500})
    assert (cut.terms[0].text, cut.is_partial) == ("x" * TEXT_CHARACTERS, False)


def test_only_keys_that_are_named_are_indexed_and_the_others_are_not_missed() -> None:
    metadata: Metadata = {"energy": {"value": 1, "unit": "keV"}, "a.b": 1, "": 2, **{f"k{n}": n for n in range(200)}}
    found = terms_of(metadata, {"energy", "k7"})
    assert [term.key for term in found.terms] == ["energy", "energy", "k7"]
    assert not found.is_partial


def test_words_are_those_of_the_path_and_of_texts() -> None:
    metadata: Metadata = {"sample": {"name": "Ag-Behenate"}, "notes": ["Straße 7", 8, {"x": "Ag"}]}
    assert words_of("data/scan_001/Ag.TIF", metadata) == [
        "data",
        "scan",
        "001",
        "ag",
        "tif",
        "behenate",
        "strasse",
        "7",
    ]


def test_values_that_are_equal_and_of_different_kinds_are_told_apart() -> None:
    for value, dimension in ((1, PLAIN), (True, BOOLEAN), (1.0, PLAIN), ("1", TEXT), (0, PLAIN), (False, BOOLEAN)):
        [term] = terms_of({"a": value}).terms
        assert term.dimension == dimension, value
    assert [term.dimension for term in terms_of({"a": {"value": 1, "unit": "mm"}}).terms] == [PLAIN, "m"]
    assert [term.dimension for term in terms_of({"a": {"value": True, "unit": "mm"}}).terms] == [BOOLEAN]
