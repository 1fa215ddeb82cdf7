"""What a transaction sees: never the past, whoever had its connection before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from sqlalchemy import event, text
from sqlalchemy.engine import Engine

from beamkeeper.db.base import make_engine
from beamkeeper.testing.catalogue import Catalogue, new_file


def counted(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM frames")) or 0)


def test_a_query_that_is_not_read_to_its_end_shows_nobody_the_past(tmp_path: Path) -> None:
    engine = make_engine(f"sqlite:///{tmp_path / 'test.db'}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE frames (number INTEGER)"))
        connection.execute(text("INSERT INTO frames VALUES (:number)"), [{"number": n} for n in range(1000)])
    with engine.connect() as connection:
        left = connection.execution_options(yield_per=1).execute(text("SELECT number FROM frames"))
        left.fetchone()
    with engine.connect(), engine.begin() as other:  # the first gets the connection that was used
        other.execute(text("INSERT INTO frames VALUES (1000)"))
    assert {counted(engine) for _ in range(5)} == {1001}
    del left


def test_writers_of_one_process_wait_for_one_another_and_not_for_the_pauses_of_sqlite(tmp_path: Path) -> None:
    with closing(Catalogue(f"sqlite:///{tmp_path / 'catalog.db'}")) as catalogue:

        def write(number: int) -> None:
            with catalogue.database.write() as tx:
                tx.files.register([new_file(f"data/{number}", experiment_uid=uid)], by="test")

        uid = catalogue.experiment().uid
        event.listen(catalogue.database.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout=0"))
        catalogue.database.close()  # so that each connection is a new one
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(write, range(40)))
        with catalogue.database.read() as tx:
            assert tx.files.summary(uid).files == 40
