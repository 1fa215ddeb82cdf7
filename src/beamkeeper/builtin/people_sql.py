"""People and proposals of a facility's SQL database, by a query of the site's own.

That database is not ours, and nothing here knows our tables: of the built-in plugins this module alone speaks SQL.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import SecretStr
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from beamkeeper.builtin import people_rows
from beamkeeper.builtin.people_rows import ColumnOptions, Row
from beamkeeper.domain.errors import SettingsError, UnavailableError
from beamkeeper.domain.people import Person, Proposal, Refused
from beamkeeper.plugins.api import Options

AT_ONCE = 2000


class SqlOptions(ColumnOptions):
    """Which database, and what to ask it."""

    url: SecretStr
    """As SQLAlchemy has it, such as postgresql+psycopg://reader@db.example.org/users; the site installs its driver."""
    password_file: Path | None = None
    """A private file with the password, which is better than one in the URL."""
    query: str
    """A SELECT whose columns are named as ours, or as `columns` says."""


class SqlDirectory:
    """People of a query."""

    options: ClassVar[type[Options]] = SqlOptions
    summary: ClassVar[str] = "People of a query on any SQL database."

    def __init__(self, options: SqlOptions) -> None:
        self._options = options

    def people(self) -> Iterator[Person | Refused]:
        """Yield everybody."""
        return people_rows.people(rows(self._options), self._options)


class SqlProposals:
    """Proposals of a query: one row for each of their people."""

    options: ClassVar[type[Options]] = SqlOptions
    summary: ClassVar[str] = "Proposals of a query on any SQL database."

    def __init__(self, options: SqlOptions) -> None:
        self._options = options

    def proposals(self) -> Iterator[Proposal | Refused]:
        """Yield every proposal."""
        return people_rows.proposals(rows(self._options), self._options)


def rows(options: SqlOptions) -> Iterator[Row]:
    """Yield the rows of the query, as the database gives them."""
    try:
        url = make_url(options.url.get_secret_value())
        if options.password_file is not None:
            url = url.set(password=_secret(options.password_file))
        engine = create_engine(url)
    except (SQLAlchemyError, ImportError) as error:
        raise SettingsError(f"the facility's database cannot be opened: {_said(error)}") from error
    try:
        with engine.connect().execution_options(yield_per=AT_ONCE) as connection:
            for row in connection.execute(text(options.query)).mappings():
                yield dict(row)
    except SQLAlchemyError as error:
        raise UnavailableError(f"the facility's database does not answer the query ({_said(error)})") from error
    finally:
        engine.dispose()


def _secret(path: Path) -> str:
    try:
        with path.open() as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise SettingsError(f"{path} can be read by others: make it private with `chmod 600`")
            return file.readline().rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"cannot read {path} ({error.strerror}): its first line is the password") from error


def _said(error: Exception) -> str:
    """Return the first line of an error: the next ones repeat the statement, and may hold the URL."""
    return str(getattr(error, "orig", None) or error).splitlines()[0][:300]
