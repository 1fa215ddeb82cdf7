"""The tables of the search index: everything in them is derived from the files, and can be made anew from those.

The index follows the files: whoever changes files names them in `search_changes` in the same transaction, and the
indexer, the only writer of all other tables, takes them from there. Files that are hidden are not in the index.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    ColumnElement,
    Double,
    Index,
    SmallInteger,
    Table,
    UniqueConstraint,
    event,
    literal_column,
)
from sqlalchemy.orm import Mapped, mapped_column

from beamkeeper.db.base import Base, BigId, NullableDocument
from beamkeeper.db.kinds import Words, only_on_postgresql, partial_index
from beamkeeper.domain import terms
from beamkeeper.domain.status import Service

CATALOG = frozenset({Service.CATALOG})

PLAIN, BOOLEAN, TEXT = 0, -1, -2
"""`dimension` of what is no quantity: a number without unit, a truth value (as 0 or 1), a text."""

NO_QUANTITY = {terms.PLAIN: PLAIN, terms.BOOLEAN: BOOLEAN, terms.TEXT: TEXT}
"""Those by the name that the domain gives them; all other names have rows in `search_dimensions`."""

DIRECTORY, TYPE, DAY = 1, 2, 3
"""By what `search_counts` counts."""

WORDS = "search_words"
"""SQLite's full-text index over `search_texts`; on PostgreSQL it is an index of that table."""

DERIVED = {"is_derived": True}
"""Marks tables that no backup needs."""

WITHOUT_ROWID: dict[str, Any] = {"info": DERIVED, "sqlite_with_rowid": False}


class SearchChangeRow(Base):
    """The files of these numbers, both included, may have changed since they were indexed."""

    __tablename__ = "search_changes"
    __table_args__ = ({"info": DERIVED},)
    services = CATALOG

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    first_id: Mapped[int] = mapped_column(BigId)
    last_id: Mapped[int] = mapped_column(BigId)


class SearchKeyRow(Base):
    """A dotted metadata key that is indexed, such as `sample.name`."""

    __tablename__ = "search_keys"
    __table_args__ = ({"info": DERIVED},)
    services = CATALOG

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)


class SearchDimensionRow(Base):
    """What quantities are of, such as `[length]`; they compare with those of the same dimension only."""

    __tablename__ = "search_dimensions"
    __table_args__ = ({"info": DERIVED},)
    services = CATALOG

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


class SearchExperimentRow(Base):
    """An experiment, by a number that is small enough to stand in every term."""

    __tablename__ = "search_experiments"
    __table_args__ = ({"info": DERIVED},)
    services = CATALOG

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[UUID] = mapped_column(unique=True)
    files: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    index_keys: Mapped[list[str] | None] = mapped_column(NullableDocument)
    """The only keys that are indexed of its files; None is all."""


class SearchFileRow(Base):
    """A file that is in the index, with what its newest version is found and counted by."""

    __tablename__ = "search_files"
    __table_args__ = (
        Index(None, "experiment_id", "size", "file_id"),
        Index(None, "experiment_id", "modified_at", "file_id"),
        Index(None, "experiment_id", "file_id"),
        Index(None, "directory_id", "file_id"),
        Index(None, "type_id", "file_id"),
        partial_index(
            "ix_search_files_partial",
            "experiment_id",
            "file_id",
            on_sqlite="is_partial = 1",
            on_postgresql="is_partial",
        ),
        {"info": DERIVED},
    )
    services = CATALOG

    file_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    experiment_id: Mapped[int]
    is_partial: Mapped[bool]
    """Whether its metadata has values beyond what is indexed of one file: only its metadata tells whether they match.

    What the experiment's `index_keys` leave out does not count.
    """
    size: Mapped[int] = mapped_column(BigInteger)
    modified_at: Mapped[datetime]
    directory_id: Mapped[int]
    type_id: Mapped[int]
    day_id: Mapped[int]


ZONE = 4096
"""So many numbers of files are one zone."""


class SearchZoneRow(Base):
    """Between which times the files of one zone were last changed, so that a search need not look through all zones.

    It may be wider than what is there now: it is never narrowed.
    """

    __tablename__ = "search_zones"
    __table_args__ = ({"info": DERIVED},)
    services = CATALOG

    zone: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    """The number of each of its files, divided by ZONE."""
    low: Mapped[datetime]
    high: Mapped[datetime]


def _by_experiment(of: str, *columns: str) -> Index:
    return partial_index(
        f"ix_search_terms_{of}",
        *columns,
        on_sqlite=f"{of} IS NOT NULL",
        on_postgresql=f"{of} IS NOT NULL AND file_id > 0",  # as BY_EXPERIMENT
    )


def _by_value(of: str, *columns: str) -> Index:
    return only_on_postgresql(
        f"ix_search_terms_{of}_value", *columns, where=f"{of} IS NOT NULL AND ordinal >= 0"
    )  # as BY_VALUE


class SearchTermRow(Base):
    """One value of a file's metadata, as domain/terms.py makes them; a list of scalars has a term for each.

    A quantity has a plain term with its number as it was written and, where its unit is known, one in SI units; both
    under its own key: there are none under `energy.value` and `energy.unit`. Which keys have terms of an experiment's
    files, is_indexed(key, index_keys) tells; of a file whose `is_partial` is set, some may be missing all the same.
    Indexed by experiment first: a caller's rights are ranges of the index, and no entry beyond them is read. On
    PostgreSQL by value first too: of one value, whose files of all experiments lie together there, and of ranges where
    all experiments are within reach.
    """

    __tablename__ = "search_terms"
    __table_args__ = (
        _by_experiment("num", "key_id", "dimension", "experiment_id", "num", "file_id"),
        _by_experiment("text", "key_id", "experiment_id", "text", "file_id"),
        _by_value("num", "key_id", "dimension", "num", "experiment_id", "file_id"),
        _by_value("text", "key_id", "text", "experiment_id", "file_id"),
        # Of lists only, whose items may lie on both sides of a range: most files have none, and cost nothing here.
        partial_index(
            "ix_search_terms_lists",
            "key_id",
            "experiment_id",
            "file_id",
            on_sqlite="ordinal > 0 AND dimension <= 0",
            on_postgresql="ordinal > 0 AND dimension <= 0",
        ),
        WITHOUT_ROWID,
    )
    services = CATALOG

    file_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    key_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ordinal: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    dimension: Mapped[int] = mapped_column(SmallInteger)
    """PLAIN, BOOLEAN, TEXT, or a row of `search_dimensions`."""
    experiment_id: Mapped[int]
    num: Mapped[float | None] = mapped_column(Double)
    """In SI units where the unit is known, else the number itself; the nearest double of it either way."""
    text: Mapped[str | None]
    """Cut after terms.TEXT_CHARACTERS: where a term has just so many, the rest is in the metadata only."""


_ZERO: Any = literal_column("0")  # as the indexes have it, so that PostgreSQL sees that it may use them
BY_EXPERIMENT: ColumnElement[bool] = SearchTermRow.file_id > _ZERO
BY_VALUE: ColumnElement[bool] = SearchTermRow.ordinal >= _ZERO
"""True of every term: PostgreSQL uses an index of terms only where the query says which of both kinds is meant.

Left to choose, it reads the range of all experiments for somebody who may read three: it takes values to be spread
evenly over experiments, and most are of one.
"""


class SearchTextRow(Base):
    """The words of a file's path and text metadata: separated by spaces on SQLite, a tsvector on PostgreSQL.

    A tsvector has the experiment's number too, as the word that `experiment_word` gives.
    """

    __tablename__ = "search_texts"
    __table_args__ = ({"info": DERIVED},)
    services = CATALOG

    file_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    experiment_id: Mapped[int]
    document: Mapped[str] = mapped_column(Words())


class SearchCountRow(Base):
    """How many files an experiment has in a directory, of a type, or of a day (UTC), and their bytes."""

    __tablename__ = "search_counts"
    __table_args__ = (UniqueConstraint("experiment_id", "kind", "name"), {"info": DERIVED})
    services = CATALOG

    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int]
    kind: Mapped[int] = mapped_column(SmallInteger)
    name: Mapped[str]
    """The directory as it is shown; the suffix in small letters, without its dot; the day as YYYY-MM-DD."""
    files: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)


class SearchFacetRow(Base):
    """How many terms of an experiment's files have this text; only so many texts of a key have rows."""

    __tablename__ = "search_facets"
    __table_args__ = (WITHOUT_ROWID,)
    services = CATALOG

    experiment_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(primary_key=True)
    files: Mapped[int] = mapped_column(BigInteger)


class SearchStatRow(Base):
    """The terms of a key and dimension in an experiment, in numbers."""

    __tablename__ = "search_stats"
    __table_args__ = (WITHOUT_ROWID,)
    services = CATALOG

    key_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    experiment_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    dimension: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    terms: Mapped[int] = mapped_column(BigInteger)
    other: Mapped[int] = mapped_column(BigInteger)
    """Of texts: how many terms have none of the texts that are in `search_facets`."""
    shift: Mapped[float | None] = mapped_column(Double)
    """Of numbers: what is taken off each before it is added up, so that little is lost where all are large."""
    total: Mapped[float | None] = mapped_column(Double)
    squares: Mapped[float | None] = mapped_column(Double)
    """None of numbers is: too large for a double."""
    low: Mapped[float | None] = mapped_column(Double)
    high: Mapped[float | None] = mapped_column(Double)


def experiment_word(experiment_id: int) -> str:
    """Return the word that stands for an experiment in a tsvector: no word of a text begins with `#`."""
    return f"#{experiment_id}"


_TEXTS: Table = SearchTextRow.__table__  # type: ignore[assignment]

WORDS_ON_POSTGRESQL = f"CREATE INDEX {WORDS} ON search_texts USING gin (document)"
WORDS_ON_SQLITE = (
    f"CREATE VIRTUAL TABLE {WORDS} USING fts5(experiment_id, document, content='search_texts', "
    "content_rowid='file_id', tokenize='unicode61 remove_diacritics 0')"
)


for _dialect, _statement in (("postgresql", WORDS_ON_POSTGRESQL), ("sqlite", WORDS_ON_SQLITE)):
    _ddl = DDL(_statement)  # type: ignore[no-untyped-call]
    event.listen(_TEXTS, "after_create", _ddl.execute_if(dialect=_dialect))
