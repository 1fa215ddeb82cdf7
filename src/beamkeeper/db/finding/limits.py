"""The time that one statement of a search may take, on both databases."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from beamkeeper.domain.errors import TooLargeError

STATEMENT_S = 10
_QUERY_CANCELED = "57014"
"""PostgreSQL's code (SQLSTATE) of a statement that was stopped."""
_INSTRUCTIONS = 20_000
"""SQLite looks at the clock after so many instructions of its machine: about a millisecond."""


_LIMITS = """\
SELECT set_config('statement_timeout', %s, true), set_config('max_parallel_workers_per_gather', '0', true),
set_config('jit', 'off', true)
"""
"""To start workers, or to compile a statement, takes longer than most of a search's statements."""


@contextmanager
def limited(session: Session, seconds: float | None = None) -> Iterator[None]:
    """Stop what takes longer than this, with a sentence that says what to do."""
    seconds = STATEMENT_S if seconds is None else seconds
    is_postgres = session.get_bind().dialect.name == "postgresql"
    connection = session.connection()
    raw = None if is_postgres else connection.connection.driver_connection
    if is_postgres:
        connection.exec_driver_sql(_LIMITS, (str(max(1, int(seconds * 1000))),))
    elif isinstance(raw, sqlite3.Connection):
        end = time.monotonic() + seconds
        raw.set_progress_handler(lambda: time.monotonic() > end, _INSTRUCTIONS)
    try:
        yield
    except OperationalError as error:
        # PostgreSQL tells why in its own language, and says now and then that a user asked for it.
        if "interrupted" not in str(error.orig) and getattr(error.orig, "sqlstate", None) != _QUERY_CANCELED:
            raise
        raise TooLargeError(
            f"the search took longer than {seconds:g} s and was stopped: narrow it, by an experiment, a directory, "
            f"or a key that is indexed"
        ) from error
    finally:
        if isinstance(raw, sqlite3.Connection):
            raw.set_progress_handler(None, 0)
    if is_postgres and connection.get_execution_options().get("beamkeeper_write"):
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # what is written then may take longer
