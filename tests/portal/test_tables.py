"""Tables on pages: each kind of cell, and nothing in it is markup but what we made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from beamkeeper.portal.tables import SHOWN, Column, Rows, Table

HOSTILE = '<img src=x onerror="alert(1)">'
ESCAPED = "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;"


def cell(value: Any, shown_as: str = "text", to: str = "") -> str:
    column = Column[Any]("a", "A", lambda _: value, shown_as, (lambda _: to) if to else None)
    return Table[Any]("table", [column], lambda _: Rows([])).cells(object(), "Europe/Paris")


@pytest.mark.parametrize(
    ("shown_as", "value", "expected"),
    [
        ("text", HOSTILE, ESCAPED),
        ("code", HOSTILE, f"<code>{ESCAPED}</code>"),
        ("state", HOSTILE, f'<span class="state plain">{ESCAPED}</span>'),
        ("list", ["a", HOSTILE], f"a, {ESCAPED}"),
        ("uid", "0190-abcdef", '<code title="0190-abcdef">…abcdef</code>'),
        ("uid", HOSTILE, f'<code title="{ESCAPED}">…t(1)&#34;&gt;</code>'),
        ("size", 1500, "1.5 kB"),
        ("count", 12345, "12\u202f345"),
        ("duration", 90, "1 min 30 s"),
        ("bool", False, "no"),
        ("text", None, ""),
        ("state", "", ""),
        ("text", 0, "0"),
        (
            "time",
            datetime(2026, 3, 31, 22, 0, 1, tzinfo=UTC),
            '<time datetime="2026-03-31T22:00:01+00:00" title="2026-03-31 22:00:01 UTC">2026-04-01 00:00:01</time>',
        ),
    ],
)
def test_a_value_is_shown_as_its_column_says_and_is_never_markup(shown_as: str, value: object, expected: str) -> None:
    assert cell(value, shown_as) == f'<td class="{shown_as}">{expected}</td>'


def test_only_what_is_there_leads_somewhere() -> None:
    assert cell("a", to='/x?"y') == '<td class="text"><a href="/x?&#34;y">a</a></td>'
    assert cell(None, to="/x") == cell("", to="/x") == '<td class="text"></td>'


def test_every_kind_of_cell_is_tried() -> None:
    tried = {"text", "code", "state", "list", "uid", "size", "count", "duration", "bool", "time"}
    assert {*SHOWN, "text"} == tried
