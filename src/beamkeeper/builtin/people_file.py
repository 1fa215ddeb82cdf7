"""People and proposals in a file that the facility writes: CSV, or JSON with a list of objects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from beamkeeper.builtin import people_rows
from beamkeeper.builtin.people_rows import ColumnOptions, Row
from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.people import Person, Proposal, Refused
from beamkeeper.plugins.api import Options


class FileOptions(ColumnOptions):
    """Which file."""

    path: Path


class FileDirectory:
    """People of a file."""

    options: ClassVar[type[Options]] = FileOptions
    summary: ClassVar[str] = "People of a CSV or JSON file."

    def __init__(self, options: FileOptions) -> None:
        self._options = options

    def people(self) -> Iterator[Person | Refused]:
        """Yield everybody."""
        return people_rows.people(rows(self._options.path), self._options)


class FileProposals:
    """Proposals of a file: one row for each of its people, or in JSON a list `people`."""

    options: ClassVar[type[Options]] = FileOptions
    summary: ClassVar[str] = "Proposals of a CSV or JSON file."

    def __init__(self, options: FileOptions) -> None:
        self._options = options

    def proposals(self) -> Iterator[Proposal | Refused]:
        """Yield every proposal."""
        return people_rows.proposals(rows(self._options.path), self._options)


def rows(path: Path) -> list[Row]:
    """Return the rows of a file, all of them: a file that was cut off would be people who left."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            found = json.loads(text)
            if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
                raise ValueError("it is no list of objects")
            return found
        parsed = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UnavailableError(f"{path} cannot be read to its end ({error}): nobody is taken over from it") from error
    if any(None in row or None in row.values() for row in parsed):
        raise UnavailableError(f"{path} has rows of another length than its first: nobody is taken over from it")
    return list(parsed)
