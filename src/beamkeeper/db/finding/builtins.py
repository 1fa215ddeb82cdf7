"""Conditions on the fields that every file has, as SQL that is true or false, and means the same on both databases."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, ColumnElement, Select, and_, case, exists, func, literal, or_, select, true
from sqlalchemy import Text as SqlText
from sqlalchemy.orm import aliased

from beamkeeper.db.experiments import ExperimentRow, StationRow
from beamkeeper.db.files.tables import FileRow, VersionRow
from beamkeeper.db.linked import DatasetFileRow, DatasetRow, DerivationRow, RunFileRow, RunRow
from beamkeeper.domain.query.ast import Ago, Builtin, Compare, Exists, Glob, In, Leaf, Matches, Moment, Text, Value
from beamkeeper.domain.query.probes import glob_prefix

Condition = ColumnElement[bool]

TEXT, YES_OR_NO = SqlText(), Boolean()
"""Made once: of each type that is made SQLAlchemy works out anew how it tells statements apart."""

LINKS = ("run", "dataset", "derived_from")
"""Fields that are of other tables."""


def builtin(leaf: Leaf, now: datetime, dialect: str, columns: Mapping[str, Any] | None = None) -> Condition:
    """Return a condition on files joined with their newest versions, or on other columns of the same meaning."""
    field = None if isinstance(leaf, Text) else leaf.field
    if not isinstance(field, Builtin):
        raise TypeError("not a condition on a field that every file has")
    if field.name in ("experiment", "station"):
        return of_experiments(leaf, FileRow.experiment_uid, now, dialect)
    if field.name in LINKS:
        return exists(linked(leaf, now, dialect).correlate(FileRow, VersionRow))
    met = _tested(columns[field.name] if columns else _column(field.name), leaf, now, dialect)
    return and_(met, path_range(leaf)) if field.name == "path" else met


def of_experiments(leaf: Leaf, uid: Any, now: datetime, dialect: str) -> Condition:
    """Return the condition that the uid of an experiment is of one whose name, or station, is meant."""
    if not isinstance(leaf, Text) and leaf.field == Builtin("experiment"):
        return uid.in_(select(ExperimentRow.uid).where(_tested(ExperimentRow.name, leaf, now, dialect)))  # type: ignore[no-any-return]
    stations = select(StationRow.uid).where(_tested(StationRow.name, leaf, now, dialect))
    return uid.in_(select(ExperimentRow.uid).where(ExperimentRow.station_uid.in_(stations)))  # type: ignore[no-any-return]


def linked(leaf: Leaf, now: datetime, dialect: str, *, is_source: bool = False) -> Select[Any]:
    """Return the links of files to a run, a dataset or a source that is meant; as a source, of all files."""
    name = leaf.field.name if not isinstance(leaf, Text) and isinstance(leaf.field, Builtin) else ""
    if name == "derived_from":
        source, version = aliased(FileRow), aliased(VersionRow)
        # A path tells of files of one's own experiment only; who knows a uid has seen the file.
        is_seen = source.experiment_uid == FileRow.experiment_uid
        is_meant = _named(leaf, and_(is_seen, _tested(source.path_shown, leaf, now, dialect)), source.uid)
        return (
            select(DerivationRow.derived_id)
            .join(version, version.id == DerivationRow.source_id)
            .join(source, source.id == version.file_id)
            .where(DerivationRow.derived_id == VersionRow.id, is_meant)
        )
    if name == "run":
        found = select(RunFileRow.file_id).join(RunRow, RunRow.id == RunFileRow.run_id)
        is_meant, of_file = (
            _named(leaf, _tested(RunRow.name, leaf, now, dialect), RunRow.uid),
            RunFileRow.file_id == FileRow.id,
        )
    else:
        found = select(DatasetFileRow.file_id).join(DatasetRow, DatasetRow.id == DatasetFileRow.dataset_id)
        is_meant = _named(leaf, _tested(DatasetRow.name, leaf, now, dialect), DatasetRow.uid)
        of_file = DatasetFileRow.file_id == FileRow.id
    return found.where(is_meant) if is_source else found.where(of_file, is_meant)


def _named(leaf: Leaf, by_name: Condition, uid: Any) -> Condition:
    """Return the condition that something is meant by its name or by its uid."""
    values = leaf.values if isinstance(leaf, In) else (leaf.value,) if isinstance(leaf, Compare) else ()
    uids = [found for value in values if isinstance(value, str) and (found := _as_uid(value)) is not None]
    return or_(by_name, uid.in_(uids)) if uids else by_name


def _as_uid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def path_range(leaf: Leaf) -> Condition:
    r"""Return the range of paths that a condition on the path allows, so that an index is used.

    As long as no character is written as `\xNN`, the bytes of a path begin as its shown text does.
    """
    if isinstance(leaf, Compare) and leaf.op == "=" and isinstance(leaf.value, str) and "\\" not in leaf.value:
        return FileRow.path == leaf.value.encode()
    prefix = glob_prefix(leaf.pattern).partition("\\")[0].encode() if isinstance(leaf, Glob) else b""
    if not prefix:
        return true()
    return and_(FileRow.path >= prefix, FileRow.path < prefix[:-1] + bytes([prefix[-1] + 1]))


def text_of(name: str) -> Any:
    """Return the text that a field has, for what SQL cannot test."""
    if name not in ("experiment", "station"):
        return _column(name)
    of = ExperimentRow.name if name == "experiment" else StationRow.name
    found = select(of).join_from(ExperimentRow, StationRow, StationRow.uid == ExperimentRow.station_uid)
    return found.where(ExperimentRow.uid == FileRow.experiment_uid).correlate(FileRow).scalar_subquery()


def glob_matches(text: Any, pattern: str, dialect: str) -> Condition:
    """Return the condition that a text has a shape: `*` any characters, `?` one."""
    if dialect == "sqlite":
        # GLOB's `[` begins a character class; a class of just that character is the character.
        return text.op("GLOB", return_type=YES_OR_NO)(literal(pattern.replace("[", "[[]"), TEXT))  # type: ignore[no-any-return]
    plain = pattern.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    return text.like(literal(plain.replace("*", "%").replace("?", "_"), TEXT), escape="!")  # type: ignore[no-any-return]


@cache
def _column(name: str) -> Any:
    shown = FileRow.path_shown
    columns = {
        "path": shown,
        "name": _after_last(shown, "/"),
        "directory": func.rtrim(_up_to_last(shown, "/"), "/", type_=TEXT),
        "type": func.lower(_suffix(_after_last(shown, "/")), type_=TEXT),
        "kind": FileRow.kind,
        "size": VersionRow.size,
        "version": VersionRow.number,
        "modified": VersionRow.modified_at,
        "finished": VersionRow.finished_at,
        "transferred": VersionRow.transferred_at,
        "catalogued": VersionRow.catalogued_at,
        "verified_at": VersionRow.verified_at,
        "verified": VersionRow.is_verified,
        "snapshot": VersionRow.is_snapshot,
        "agent": FileRow.source_agent,
        "uid": FileRow.uid,
    }
    return columns[name]


def _up_to_last(text: Any, mark: str) -> Any:
    """Return a text up to its last `mark`, which stays: all characters but that are trimmed off its end."""
    return func.rtrim(text, func.replace(text, mark, "", type_=TEXT), type_=TEXT)


def _after_last(text: Any, mark: str) -> Any:
    return func.substr(text, func.length(_up_to_last(text, mark)) + 1, type_=TEXT)


def _suffix(name: Any) -> Any:
    """Return what follows the last dot of a name, which does not begin it; empty where there is none."""
    before = func.length(_up_to_last(name, "."))
    return case((before > 1, func.substr(name, before + 1, type_=TEXT)), else_="")


def _tested(column: Any, leaf: Leaf, now: datetime, dialect: str) -> Condition:
    match leaf:
        case Compare(_, op, value):
            known = _bound(column, value, now)
            met = column.op(op, return_type=YES_OR_NO, is_comparison=True)(known)
        case In(_, values):
            met = column.in_([_bound(column, value, now) for value in values])  # the column worked out once
        case Glob(_, pattern):
            met = glob_matches(column, pattern, dialect)
        case Exists():
            return column.is_not(None)  # type: ignore[no-any-return]
        case Matches():
            raise TypeError("a regular expression is no SQL")
        case _:
            raise TypeError("words are no column")
    # What is not there makes a condition false, and not unknown: `not` must turn it around.
    return and_(column.is_not(None), met)


def _bound(column: Any, value: Value, now: datetime) -> Any:
    match value:
        case Moment(at):
            return literal(at, VersionRow.modified_at.type)
        case Ago(seconds):
            return literal(now - timedelta(seconds=seconds), VersionRow.modified_at.type)
        case str() if column is FileRow.uid:
            return literal(UUID(value), FileRow.uid.type)
        case str():
            return literal(value, TEXT)
        case _:
            return literal(value)
