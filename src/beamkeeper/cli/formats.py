"""Files of exported documents: JSON Lines, CSV and Parquet, written and read a few rows at a time."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from beamkeeper.domain.errors import InvalidError, SettingsError
from beamkeeper.domain.names import Metadata
from beamkeeper.domain.replication import FileDocument, VersionDocument

FORMATS = ("jsonl", "csv", "parquet")
COLUMNS = (
    "uid",
    "experiment_uid",
    "path",
    "path_b64",
    "kind",
    "version",
    "size",
    "checksums",
    "is_verified",
    "modified_at",
    "catalogued_at",
    "source_agent",
    "deleted_at",
    "metadata",
)
"""What CSV and Parquet say of a file and its newest version; Parquet has the whole document besides."""

ROW_GROUP = 1000
"""So many documents are in memory while Parquet is written or read."""

_JSON = TypeAdapter(Any)


def kind_of(path: Path | None, named: str | None) -> str:
    """Return the format that is meant: the one named, else that of the file's name, else JSON Lines."""
    if named is not None:
        return named
    suffix = "" if path is None else path.suffix.lower().lstrip(".")
    known = {"csv": "csv", "parquet": "parquet", "pq": "parquet"}
    return known.get(suffix, "jsonl")


def write(documents: Iterable[FileDocument], path: Path | None, kind: str) -> None:
    """Write documents; a file appears when it is whole, and without a path they go to standard output."""
    if kind == "parquet":
        _write_parquet(documents, path)
        return
    with _written(path) as file:
        if kind == "csv":
            _write_csv(documents, file)
            return
        for document in documents:
            file.write(document.model_dump_json().encode() + b"\n")


def read(path: Path, kind: str) -> Iterator[Metadata]:
    """Yield documents as they are in a file of JSON Lines or Parquet."""
    if kind == "csv":
        raise InvalidError(
            "CSV holds no whole documents: give --metadata to take metadata from it, or use JSON Lines or Parquet"
        )
    return _read_parquet(path) if kind == "parquet" else _read_lines(path)


def read_csv(path: Path) -> Iterator[Mapping[str, str]]:
    """Yield the rows of a CSV file, by the names in its first line."""
    csv.field_size_limit(2**27)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"uid", "metadata"} <= set(rows.fieldnames or ()):
                raise InvalidError(f'{path} has no columns "uid" and "metadata" in its first line')
            yield from rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidError(f"{path} cannot be read as CSV: {error}") from error


def plain(value: str, where: str) -> Any:
    """Return the value of JSON text."""
    try:
        return json.loads(value, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{where} is not JSON: {error}") from error


def _refused(word: str) -> None:
    raise ValueError(f"{word} is no number that JSON knows")


@contextmanager
def _written(path: Path | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise InvalidError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        new.unlink(missing_ok=True)


def _write_csv(documents: Iterable[FileDocument], file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    rows = csv.writer(text)
    rows.writerow(COLUMNS)
    for document in documents:
        rows.writerow(["" if value is None else value for value in _row(document)])
    text.detach()


def _row(document: FileDocument) -> list[Any]:
    version = next(version for version in document.versions if version.number == document.number)
    return [
        str(document.uid),
        str(document.experiment_uid),
        document.path,
        document.path_b64,
        str(document.kind),
        version.number,
        version.size,
        _checksums(version),
        version.is_verified,
        version.modified_at.isoformat(),
        version.catalogued_at.isoformat(),
        document.source.agent,
        document.deleted_at and document.deleted_at.isoformat(),
        _JSON.dump_json(document.metadata).decode(),
    ]


def _checksums(version: VersionDocument) -> str:
    return " ".join(f"{checksum.algorithm}:{checksum.value}" for checksum in version.checksums)


def _write_parquet(documents: Iterable[FileDocument], path: Path | None) -> None:
    arrow, parquet = _arrow()
    if path is None:
        raise InvalidError("Parquet cannot go to standard output: name a file with --out FILE")
    text, number, time = arrow.string(), arrow.int64(), arrow.timestamp("us", tz="UTC")
    kinds = {"version": number, "size": number, "is_verified": arrow.bool_()}
    kinds |= {"modified_at": time, "catalogued_at": time, "deleted_at": time}
    names = (*COLUMNS, "document")
    schema = arrow.schema([(name, kinds.get(name, text)) for name in names])
    waiting = iter(documents)
    with _written(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while part := list(islice(waiting, ROW_GROUP)):
            columns: list[list[Any]] = [list(column) for column in zip(*map(_typed_row, part), strict=True)]
            writer.write_table(arrow.table(dict(zip(names, columns, strict=True)), schema=schema))


def _typed_row(document: FileDocument) -> list[Any]:
    version = next(version for version in document.versions if version.number == document.number)
    times = {"modified_at": version.modified_at, "catalogued_at": version.catalogued_at}
    times |= {"deleted_at": document.deleted_at}  # type: ignore[dict-item]
    row = [times.get(name, value) for name, value in zip(COLUMNS, _row(document), strict=True)]
    return [*row, document.model_dump_json()]


def _read_parquet(path: Path) -> Iterator[Metadata]:
    arrow, parquet = _arrow()
    try:
        with parquet.ParquetFile(path) as file:
            if "document" not in file.schema_arrow.names:
                raise InvalidError(f'{path} has no column "document": only what `dm catalog export` wrote is imported')
            for batch in file.iter_batches(batch_size=ROW_GROUP, columns=["document"]):
                for number, value in enumerate(batch.column(0).to_pylist(), start=1):
                    yield _document(value, f"{path}, row {number}")
    except (OSError, arrow.ArrowException) as error:
        raise InvalidError(f"{path} cannot be read as Parquet: {error}") from error


def _read_lines(path: Path) -> Iterator[Metadata]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _document(line, f"line {number} of {path}")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(f"{path} cannot be read: {error}") from error


def _document(text: Any, where: str) -> Metadata:
    value = plain(str(text), where)
    if not isinstance(value, dict):
        raise InvalidError(f"{where} is no JSON object")
    return value


def _arrow() -> tuple[Any, Any]:
    try:
        load = importlib.import_module
        return load("pyarrow"), load("pyarrow.parquet")
    except ImportError as error:
        raise SettingsError("Parquet needs pyarrow: install it with `pip install 'beamkeeper[parquet]'`") from error
