"""The query language: both notations, what they refuse and where, and the way back to text."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.query import parse_document, parse_text, printed
from beamkeeper.domain.query.ast import (
    EVERYTHING,
    Ago,
    Builtin,
    Compare,
    Exists,
    Glob,
    In,
    Matches,
    Meta,
    Moment,
    Node,
    Not,
    Quantity,
    Text,
    both,
    either,
)
from beamkeeper.domain.query.evaluate import holds
from beamkeeper.domain.query.regex import compiled, prefix_of
from beamkeeper.testing.queries import QUERIES, document_of, means, samples

SIZE, PATH, MODIFIED = Builtin("size"), Builtin("path"), Builtin("modified")
ENERGY, NAME = Meta(("energy",)), Meta(("sample", "name"))

MEANINGS: list[tuple[str, dict[str, Any], Node]] = [
    ("", {}, EVERYTHING),
    ("size > 1GB", {"size": {"$gt": "1GB"}}, Compare(SIZE, ">", 10**9)),
    ("size<=1.5 KiB", {"size": {"$lte": "1.5KiB"}}, Compare(SIZE, "<=", 1536)),
    ('sample.name ~ "Ag*"', {"sample.name": {"$glob": "Ag*"}}, Glob(NAME, "Ag*")),
    ("sample.name = Ag", {"sample.name": "Ag"}, Compare(NAME, "=", "Ag")),
    ("sample.name != 'Ag'", {"sample.name": {"$ne": "Ag"}}, Not(Compare(NAME, "=", "Ag"))),
    ("energy >= 12keV", {"energy": {"$gte": {"value": 12, "unit": "keV"}}}, Compare(ENERGY, ">=", Quantity(12, "keV"))),
    ('energy < 12 "keV"', {"energy": {"$lt": {"value": 12, "unit": "keV"}}}, Compare(ENERGY, "<", Quantity(12, "keV"))),
    ("modified > -7d", {"modified": {"$gt": "-7d"}}, Compare(MODIFIED, ">", Ago(7 * 86400))),
    (
        "modified < 2026-03-01T12:00+01:00",
        {"modified": {"$lt": "2026-03-01T11:00Z"}},
        Compare(MODIFIED, "<", Moment(datetime(2026, 3, 1, 11, tzinfo=UTC))),
    ),
    (
        "a in (1, x, 2mm)",
        {"a": {"$in": [1, "x", {"value": 2, "unit": "mm"}]}},
        In(Meta(("a",)), (1, "x", Quantity(2, "mm"))),
    ),
    ("a NOT IN (true)", {"a": {"$nin": [True]}}, Not(In(Meta(("a",)), (True,)))),
    ("a exists", {"a": {"$exists": True}}, Exists(Meta(("a",)))),
    ("a = null", {"a": None}, Not(Exists(Meta(("a",))))),
    ('a matches "^\\d+$"', {"a": {"$regex": "^\\d+$"}}, Matches(Meta(("a",)), "^\\d+$")),
    ("meta.size > 3", {"meta.size": {"$gt": 3}}, Compare(Meta(("size",)), ">", 3)),
    ('"size" > 3', {"meta.size": {"$gt": 3}}, Compare(Meta(("size",)), ">", 3)),
    ('sample."odd key" = 1', {"sample.odd key": 1}, Compare(Meta(("sample", "odd key")), "=", 1)),
    ("verified", {"verified": True}, Compare(Builtin("verified"), "=", True)),
    ("data/*.tif", {"path": {"$glob": "data/*.tif"}}, Glob(PATH, "data/*.tif")),
    ("behenate", {"$text": "behenate"}, Text("behenate")),
    ('"silver beh*"', {"$text": {"$search": "silver  beh*"}}, Text("silver beh*")),
    (
        "not (a = 1 or b = 2) and c = 3",
        {"$not": {"$or": [{"a": 1}, {"b": 2}]}, "c": 3},
        both(Not(either(Compare(Meta(("a",)), "=", 1), Compare(Meta(("b",)), "=", 2))), Compare(Meta(("c",)), "=", 3)),
    ),
    (
        "a > 1 and a < 3",
        {"a": {"$gt": 1, "$lt": 3}},
        both(Compare(Meta(("a",)), ">", 1), Compare(Meta(("a",)), "<", 3)),
    ),
    ("not a > 1", {"a": {"$not": {"$gt": 1}}}, Not(Compare(Meta(("a",)), ">", 1))),
]


@pytest.mark.parametrize(("text", "document", "node"), MEANINGS, ids=[text or "nothing" for text, _, _ in MEANINGS])
def test_a_query_means_the_same_in_both_notations(text: str, document: dict[str, Any], node: Node) -> None:
    assert parse_text(text) == node
    assert parse_document(document) == node
    assert parse_text(printed(node)) == node


@settings(max_examples=300, deadline=None)
@given(QUERIES)
def test_what_is_printed_reads_as_what_it_was(node: Node) -> None:
    assert parse_text(printed(node)) == node
    assert parse_document(document_of(node)) == node


REFUSED: list[tuple[str, int, str]] = [
    ("a like 1", 3, 'expected "and", "or"'),
    ("a = ", 5, "expected a value"),
    ("(a = 1", 7, 'expected ")"'),
    ("a = 1)", 6, 'expected "and"'),
    ('a = "x', 5, "never closed"),
    ("a = 1 and", 10, "expected a condition"),
    ("a ! 1", 3, "not understood"),
    ("a in 1", 6, "expected a list"),
    ("a in ()", 7, "expected a value"),
    ("a in (1 2)", 9, 'expected "," or ")"'),
    ("size = big", 8, "is no size"),
    ("size > 1 parsec", 8, "is no size"),
    ("size ~ 1", 8, "is no text"),
    ("size exists", 1, "every file has size"),
    ("modified > tomorrow", 12, "is no time"),
    ("modified > -99999999999999d", 12, "is no time"),
    ("verified = yes", 12, "is no flag"),
    ("version = 1.5", 11, "is no number"),
    ("uid = 1", 7, "is no uid"),
    ("size", 5, "expected an operator"),
    ("energy > 12 furlongs_per", 10, "is no unit"),
    ("energy > true", 10, "numbers, texts and times only"),
    ("energy > null", 10, "null has no order"),
    ("a..b = 1", 1, "empty part"),
    ("$where = 1 and text = ''", 23, "needs words"),
    ('a."b.c" = 1', 1, "with a dot"),
    ("a = 1e999", 5, "beyond what a double holds"),
    ("a matches x", 11, "begins with ^"),
    ('a matches "^("', 11, "refused"),
    ('a matches "^(?=x)"', 11, "refused"),
    ('a matches "^(.)\\\\1"', 11, "refused"),
    ('a matches "^((a{100}){100}){100}"', 11, "refused"),
    ("a ~ " + "*a" * 17, 5, "more than 16 stars"),
    ("a = '\0'", 5, "NUL"),
    ("a = '\ud800'", 5, "surrogate"),
    ("(" * 21 + "a = 1" + ")" * 21, 21, "deeper than 20"),
    (" and ".join(["a = 1"] * 201), 2001, "more than 200"),
    ("a in (" + ",".join(["1"] * 501) + ")", 6, "at most 500"),
    ("a" * 501 + " = 1", 1, "a key of more than"),
]


@pytest.mark.parametrize(("text", "position", "reason"), REFUSED, ids=[text[:30] for text, _, _ in REFUSED])
def test_a_text_is_refused_with_the_position(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(reason)) as refusal:
        parse_text(text)
    assert refusal.value.details["position"] == position


REFUSED_DOCUMENTS: list[tuple[dict[str, Any], str, str]] = [
    ({"$where": "1"}, "filter.$where", "no code is run here"),
    ({"a": {"$where": "1"}}, "filter.a.$where", "no code is run here"),
    ({"a": {"$regex": "^a", "$options": "i"}}, "filter.a.$options", "^(?i)"),
    ({"$nor": [{"a": 1}]}, "filter.$nor", "write $not"),
    ({"a": {"$gt": [1]}}, "filter.a.$gt", "use $in"),
    ({"a": {"b": 1}}, "filter.a", "dotted paths"),
    ({"a": {"$gt": 1, "b": 2}}, "filter.a.b", "not known"),
    ({"a": {}}, "filter.a", "expected a value"),
    ({"$and": [{"a": 1}, {"b": {"$in": 1}}]}, "filter.$and[1].b.$in", "a list"),
    ({"$or": []}, "filter.$or", "not an empty one"),
    ({"$or": [{}]}, "filter.$or[0]", "stands alone only"),
    ({"$not": 1}, "filter.$not", "expected an object"),
    ({"a": {"$not": 1}}, "filter.a.$not", "expected an object"),
    ({"a": {"$exists": 1}}, "filter.a.$exists", "true or false"),
    ({"a": math.nan}, "filter.a", "double"),
    ({"a": 10**400}, "filter.a", "double"),
    ({"a": {"value": 10**400, "unit": "m"}}, "filter.a", "double"),
    ({"a": {"value": math.inf, "unit": "m"}}, "filter.a", "no unit"),
    ({"a": "\0"}, "filter.a", "NUL"),
    ({"": 1}, "filter.", "empty part"),
    ({"a\0": 1}, "filter.a?", "NUL"),
    ({"size": {"$gt": {"value": 1, "unit": "m"}}}, "filter.size.$gt", "is no size"),
    ({"size": True}, "filter.size", "is no size"),
    ({"size": 1.5}, "filter.size", "no whole number"),
    ({"modified": 5}, "filter.modified", "is no time"),
    ({"text": {"$gt": "a"}}, "filter.text.$gt", "takes = only"),
    ({"$and": [{"a": 1}] * 201}, "filter.$and", "more than 200"),
]


@pytest.mark.parametrize(("document", "path", "reason"), REFUSED_DOCUMENTS, ids=[p for _, p, _ in REFUSED_DOCUMENTS])
def test_a_document_is_refused_with_the_path(document: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=re.escape(reason)) as refusal:
        parse_document(document)
    assert refusal.value.details["path"] == path


def test_a_deep_document_is_refused() -> None:
    document: dict[str, Any] = {"a": 1}
    inner: dict[str, Any] = {"$gt": 1}
    for _ in range(300):
        document, inner = {"$not": document}, {"$not": inner}
    for deep in (document, {"a": inner}):
        with pytest.raises(InvalidError, match="deeper than 20"):
            parse_document(deep)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(list("()\"'=<>!~,. $*\\and or not in 1kVe-x")), max_size=30).map("".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        node = parse_text(text)
    except InvalidError as refusal:
        assert "position" in refusal.details  # noqa: PT017 - it need not be refused
    else:
        assert parse_text(printed(node)) == node


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$and", "$or", "$not", "$gt", "$in", "$regex", "a", "size", "$x", ""]), inner
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["$and", "$or", "$not", "$text", "a.b", "size", "modified"]), JSON))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        node = parse_document(document)
    except InvalidError as refusal:
        assert str(refusal.details["path"]).startswith("filter")  # noqa: PT017
    else:
        assert parse_text(printed(node)) == node


@settings(max_examples=200, deadline=None)
@given(samples(), QUERIES)
def test_documents_tell_what_the_language_means(files: list[Any], node: Node) -> None:
    leaf = node
    while isinstance(leaf, Not):
        leaf = leaf.item
    if isinstance(leaf, Text) or isinstance(getattr(leaf, "field", None), Meta):
        for file in files:
            assert holds(leaf, file.path, file.metadata) == means(leaf, file)  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a*)*b", "^(.*)(.*)(.*)(.*)(.*)x$"])
def test_no_regular_expression_runs_away(pattern: str) -> None:
    assert not compiled(pattern).match("a" * 5000 + "!")


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        ("^Ag", "Ag"),
        ("^Ag*", "A"),
        ("^Ag{0}", "A"),
        ("^A|B", ""),
        ("^(?i)ag", ""),
        ("^a.b", "a"),
        ("^", ""),
        ("^x+", "x"),
    ],
)
def test_what_a_match_begins_with_is_known(pattern: str, prefix: str) -> None:
    assert prefix_of(pattern) == prefix
