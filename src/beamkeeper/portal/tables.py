"""Tables: one description gives the page, its JSON and its CSV, at addresses that differ only in their ending."""

from __future__ import annotations

import csv
import io
import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from markupsafe import Markup, escape
from pydantic_core import to_jsonable_python
from starlette.responses import JSONResponse, Response, StreamingResponse

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.names import from_b64, to_b64
from beamkeeper.portal import showing
from beamkeeper.portal.visits import Visit, address

RowT = TypeVar("RowT")

MOST_ROWS = 1_000_000
"""So many rows has a CSV at most."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is a formula to a spreadsheet, which would run what somebody called their file."""


SHOWN: Mapping[str, Callable[[Any, str], str]] = {
    "time": showing.when,
    "size": lambda value, _: escape(showing.size(value)),
    "count": lambda value, _: escape(showing.count(value)),
    "duration": lambda value, _: escape(showing.duration(value)),
    "state": lambda value, _: f'<span class="state {showing.tone(value)}">{escape(value)}</span>',
    "list": lambda value, _: escape(", ".join(map(str, value))),
    "bool": lambda value, _: "yes" if value else "no",
    "uid": lambda value, _: f'<code title="{escape(value)}">…{escape(str(value)[-6:])}</code>',
    "code": lambda value, _: f"<code>{escape(value)}</code>",
}
"""How a value that is there looks on a page, in the zone of its station; everything else is text."""


@dataclass(frozen=True)
class Column(Generic[RowT]):
    """One column: what it is of a row, how it is shown (see SHOWN), and where it leads."""

    key: str
    label: str
    value: Callable[[RowT], Any]
    shown_as: str = "text"
    href: Callable[[RowT], str] | None = None
    sort: str = ""
    """What `order` is in the address to have rows in this column's order; empty where they cannot be."""


@dataclass(frozen=True)
class Rows(Generic[RowT]):
    """Some rows, and the cursor with which the list goes on."""

    items: Sequence[RowT]
    next: str | None = None


def rows_after(rows: Sequence[RowT], key: Callable[[RowT], bytes], after: str | None, limit: int) -> Rows[RowT]:
    """Return some rows of a whole list, which is in the order of its keys; no two have the same.

    The cursor is the key of the row before, which may be gone meanwhile.
    """
    try:
        begin = bisect_right(rows, from_b64(after), key=key) if after else 0
    except ValueError as error:
        raise InvalidError("the address has a wrong cursor: begin with the first page") from error
    items = rows[begin : begin + limit]
    return Rows(items, to_b64(key(items[-1])) if begin + limit < len(rows) else None)


@dataclass(frozen=True)
class Table(Generic[RowT]):
    """A list of things at one address; `read` gives the rows after a cursor."""

    name: str
    columns: Sequence[Column[RowT]]
    read: Callable[[str | None], Rows[RowT]]
    empty: str = "There is nothing here yet."
    at: str = ""
    """Its own address, where it stands on a page of another."""

    def answer(self, visit: Visit, template: str, **values: Any) -> Response:
        """Return the table as the address wants it."""
        if visit.path.endswith(".csv"):
            return self._csv()
        rows = self.read(visit.query.get("after"))
        if visit.path.endswith(".json"):
            found = [self._plain(row) for row in rows.items]
            return JSONResponse({"items": found, "next": rows.next})
        shown: dict[str, Any] = {"table": self, "rows": rows, "next_page": self._next(visit, rows)}
        return visit.page(template, **shown, **values)

    def cells(self, row: RowT, zone: str) -> Markup:
        """Return the cells of a row. A template takes five times as long for them, 20 ms for fifty files."""
        return Markup("".join(_shown(column, row, zone) for column in self.columns))  # noqa: S704 - escaped in there

    def formats(self, visit: Visit) -> dict[str, str]:
        """Return the addresses of the same list in other forms."""
        query = {key: value for key, value in visit.query.items() if key != "after"}
        path = self.at or visit.path
        return {"CSV": address(f"{path}.csv", query), "JSON": address(f"{path}.json", query)}

    def _next(self, visit: Visit, rows: Rows[RowT]) -> str | None:
        return visit.with_query(after=rows.next) if rows.next else None

    def _plain(self, row: RowT) -> dict[str, Any]:
        return {column.key: to_jsonable_python(column.value(row)) for column in self.columns}

    def _csv(self) -> Response:
        rows = self.read(None)  # so that what is refused is refused with a status
        headers = {"content-disposition": f'attachment; filename="{self.name}.csv"'}
        return StreamingResponse(self._lines(rows), media_type="text/csv; charset=utf-8", headers=headers)

    def _lines(self, rows: Rows[RowT]) -> Iterator[str]:
        yield _line([column.key for column in self.columns])
        left = MOST_ROWS
        while True:
            for row in rows.items:
                yield _line([_cell(value) for value in self._plain(row).values()])
            left -= len(rows.items)
            if rows.next is None or left <= 0:
                return
            rows = self.read(rows.next)


def _shown(column: Column[RowT], row: RowT, zone: str) -> str:
    value = column.value(row)
    if value is None or value == "":
        text = ""
    else:
        text = SHOWN[column.shown_as](value, zone) if column.shown_as in SHOWN else escape(value)
        if column.href is not None:
            text = f'<a href="{escape(column.href(row))}">{text}</a>'
    return f'<td class="{escape(column.shown_as)}">{text}</td>'


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return json.dumps(value) if isinstance(value, (dict, list)) else str(value)
