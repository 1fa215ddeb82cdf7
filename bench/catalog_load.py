"""Fills a catalogue's database with generated files and their index: by COPY, or as fast as SQLite takes them.

Into PostgreSQL several processes copy at once, each the tables of its own, and then several indexes are made at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from multiprocessing import get_context
from typing import Any
from uuid import UUID

import catalog_data as data
from sqlalchemy import text

from beamkeeper.db import open_database
from beamkeeper.db.search.counting import MAX_TEXTS
from beamkeeper.db.search.tables import DAY, DIRECTORY, TYPE, ZONE, experiment_word
from beamkeeper.domain.status import Service
from beamkeeper.domain.terms import BOOLEAN, PLAIN, TEXT, Term, terms_of, words_of

AREA = UUID(int=10)
COLUMNS = {
    "files": "id uid experiment_uid path path_shown parent kind number source_agent source_path metadata annotations",
    "versions": "id uid file_id number size identity is_snapshot is_verified modified_at finished_at transferred_at "
    "verified_at catalogued_at is_suspect",
    "search_files": "file_id experiment_id is_partial size modified_at directory_id type_id day_id",
    "search_terms": "file_id key_id ordinal dimension experiment_id num text",
    "search_texts": "file_id experiment_id document",
}
SMALL = {
    "search_keys": "id key",
    "search_dimensions": "id name",
    "search_experiments": "id uid files bytes index_keys",
    "search_counts": "id experiment_id kind name files bytes",
    "search_facets": "experiment_id key_id text files",
    "search_stats": "key_id experiment_id dimension terms other shift total squares low high",
}
ZONES = f"""
INSERT INTO search_zones (zone, low, high)
SELECT file_id / {ZONE}, MIN(modified_at), MAX(modified_at) FROM search_files GROUP BY 1
"""
CHUNK = 20_000


class Generated:
    """The rows of every table; small tables are complete once all files were taken."""

    def __init__(
        self, files: int, experiments: Sequence[UUID], *, is_postgres: bool, tables: Iterable[str] = COLUMNS
    ) -> None:
        self._files = files
        self._tables = frozenset(tables)
        self._experiments = experiments
        self._is_postgres = is_postgres
        self._only = frozenset(data.INDEX_KEYS)
        self._by_number: list[list[int]] = []
        self.keys: dict[str, int] = {}
        self.dimensions: dict[str, int] = {}
        self._files_of: Counter[int] = Counter()
        self._bytes_of: Counter[int] = Counter()
        self._places: dict[tuple[int, int, str], list[int]] = {}
        self._texts: dict[tuple[int, int], Counter[str]] = {}
        self._numbers: dict[tuple[int, int, int], list[float]] = {}

    def chunks(self) -> Iterator[dict[str, list[str]]]:
        """Yield the lines of some thousand files at a time, by table, in PostgreSQL's text format."""
        rows: dict[str, list[str]] = {name: [] for name in self._tables}
        last = begun = 0
        for scan in data.scans(self._files):
            self._take(scan, last, rows)
            last += scan.files
            if last >= begun + CHUNK:
                yield rows
                rows, begun = {name: [] for name in self._tables}, last
        yield rows

    def _take(self, scan: data.Scan, last: int, rows: dict[str, list[str]]) -> None:
        experiment, first = scan.experiment + 1, last + 1
        digest = hashlib.blake2b(f"{data.SEED} {scan.number}".encode(), digest_size=8).hexdigest()
        uid = f"{digest[:4]}-7{digest[4:7]}-8{digest[7:10]}"
        if "files" in rows:
            rows["files"].append(self._files_of_scan(scan, first, uid))
        if "versions" in rows:
            rows["versions"].append(_versions_of_scan(scan, first, uid))
        if "search_files" in rows:
            rows["search_files"].append(self._counted(scan, first, experiment))
        if "search_terms" in rows or "search_files" in rows:
            terms = self._terms(scan, experiment)
            if "search_terms" in rows:
                rows["search_terms"].extend(
                    terms.replace("@0", str(first + frame)).replace("@1", str(frame)) for frame in range(scan.files)
                )
        if "search_texts" in rows:
            document = self._document(scan, experiment)
            rows["search_texts"].extend(
                f"{first + frame}\t{experiment}\t{document.replace('@1', f'{frame:05d}')}\n"
                for frame in range(scan.files)
            )

    def _files_of_scan(self, scan: data.Scan, first: int, uid: str) -> str:
        experiment, parent = self._experiments[scan.experiment], f"data/scan{scan.number:06d}".encode().hex()
        stem, shown = scan.path(0).rpartition("_")[0], scan.text()
        lines = []
        for frame in range(scan.files):
            path = f"{stem}_{frame:05d}.{scan.suffix}"
            raw, id_ = "\\\\x" + path.encode().hex(), first + frame
            metadata = shown.replace("@1", str(frame)).replace("@2", repr(round(frame * 0.01, 4)))
            lines.append(
                f"{id_}\t01900000-{uid}-{id_:012x}\t{experiment}\t{raw}\t{path}\t\\\\x{parent}\tfile\t1\tdet\t{raw}\t"
                f"{metadata}\t{{}}\n"
            )
        return "".join(lines)

    def _counted(self, scan: data.Scan, first: int, experiment: int) -> str:
        directory = self._place(experiment, DIRECTORY, f"data/scan{scan.number:06d}")
        type_ = self._place(experiment, TYPE, "" if scan.suffix.isdigit() else scan.suffix)
        lines = []
        for frame in range(scan.files):
            at, size = scan.modified_us(frame), scan.size(frame)
            day = self._place(experiment, DAY, _day(at))
            lines.append(f"{first + frame}\t{experiment}\tf\t{size}\t{at}\t{directory}\t{type_}\t{day}\n")
            self._count(experiment, size, (directory, type_, day))
        return "".join(lines)

    def _place(self, *name: Any) -> int:
        return self._places.setdefault(name, [len(self._places) + 1, 0, 0])[0]

    def _count(self, experiment: int, size: int, places: Sequence[int]) -> None:
        self._files_of[experiment] += 1
        self._bytes_of[experiment] += size
        for place in places:
            while len(self._by_number) < place:
                self._by_number.append([0, 0])
            tally = self._by_number[place - 1]
            tally[0] += 1
            tally[1] += size

    def _terms(self, scan: data.Scan, experiment: int) -> str:
        """Return the terms of a scan's files, with @0 for the file, @1 for the frame; and count them."""
        lines = []
        first, last = (terms_of(scan.of(frame), self._only).terms for frame in (0, scan.files - 1))
        for term, other in zip(first, last, strict=True):
            key = self.keys.setdefault(term.key, len(self.keys) + 1)
            dimension = self._dimension(term)
            if term.text is not None:
                self._texts.setdefault((experiment, key), Counter())[term.text] += scan.files
            else:
                self._add((key, experiment, dimension), term.num or 0.0, other.num or 0.0, scan.files)
            num = "\\N" if term.num is None else "@1" if term.key == "frame" else repr(term.num)
            lines.append(f"@0\t{key}\t{term.ordinal}\t{dimension}\t{experiment}\t{num}\t{term.text or chr(92) + 'N'}\n")
        return "".join(lines)

    def _dimension(self, term: Term) -> int:
        known = {PLAIN: 0, BOOLEAN: -1, TEXT: -2}.get(term.dimension)
        return self.dimensions.setdefault(term.dimension, len(self.dimensions) + 1) if known is None else known

    def _add(self, stat: tuple[int, int, int], low: float, high: float, count: int) -> None:
        """Add the terms of a scan, whose numbers run evenly from the first file to the last."""
        known = self._numbers.setdefault(stat, [0, low, 0.0, 0.0, low, high])
        step = (high - low) / max(1, count - 1)
        a = low - known[1]
        known[0] += count
        known[2] += count * a + step * count * (count - 1) / 2
        known[3] += (
            count * a * a + a * step * count * (count - 1) + step * step * (count - 1) * count * (2 * count - 1) / 6
        )
        known[4], known[5] = min(known[4], low, high), max(known[5], low, high)

    def _document(self, scan: data.Scan, experiment: int) -> str:
        words = words_of(scan.path(99999).replace("99999", "frame"), scan.metadata)
        shown = ["@1" if word == "frame" else word for word in words]
        if self._is_postgres:
            return " ".join(f"'{word}'" for word in (*shown, experiment_word(experiment)))
        return " ".join(shown)

    def small(self) -> Mapping[str, list[str]]:
        """Return the lines of the small tables."""
        only = json.dumps(data.INDEX_KEYS)
        facets, others = [], {}
        for (experiment, key), texts in self._texts.items():
            counted = list(islice(texts.items(), MAX_TEXTS))
            facets += [f"{experiment}\t{key}\t{value}\t{count}\n" for value, count in counted]
            others[key, experiment] = texts.total(), texts.total() - sum(count for _, count in counted)
        nothing = "\t".join(["\\N"] * 5)
        return {
            "search_keys": [f"{id_}\t{key}\n" for key, id_ in self.keys.items()],
            "search_dimensions": [f"{id_}\t{name}\n" for name, id_ in self.dimensions.items()],
            "search_experiments": [
                f"{n + 1}\t{uid}\t{self._files_of[n + 1]}\t{self._bytes_of[n + 1]}\t{only}\n"
                for n, uid in enumerate(self._experiments)
            ],
            "search_counts": [
                f"{id_}\t{experiment}\t{kind}\t{name}\t{self._by_number[id_ - 1][0]}\t{self._by_number[id_ - 1][1]}\n"
                for (experiment, kind, name), (id_, _, _) in self._places.items()
            ],
            "search_facets": facets,
            "search_stats": [
                *(f"{key}\t{exp}\t-2\t{all_}\t{other}\t{nothing}\n" for (key, exp), (all_, other) in others.items()),
                *(
                    f"{key}\t{exp}\t{dimension}\t{int(n)}\t0\t{shift!r}\t{total!r}\t{squares!r}\t{low!r}\t{high!r}\n"
                    for (key, exp, dimension), (n, shift, total, squares, low, high) in self._numbers.items()
                ),
            ],
        }


_DAYS: dict[int, str] = {}


def _day(at_us: int) -> str:
    number = at_us // 86_400_000_000
    if number not in _DAYS:
        from datetime import UTC, datetime

        _DAYS[number] = f"{datetime.fromtimestamp(number * 86_400, UTC):%Y-%m-%d}"
    return _DAYS[number]


def _versions_of_scan(scan: data.Scan, first: int, uid: str) -> str:
    identity = '{"dev":1,"ino":1,"size":1,"mtime_ns":1,"ctime_ns":1}'
    lines = []
    for frame in range(scan.files):
        at, id_ = scan.modified_us(frame), first + frame
        times = f"{at}\t{at}\t{at}\t{at}\t{at}"
        lines.append(f"{id_}\t01900001-{uid}-{id_:012x}\t{id_}\t1\t{scan.size(frame)}\t{identity}\tf\tt\t{times}\tf\n")
    return "".join(lines)


def load(url: str, files: int, experiments: Sequence[UUID], say: Callable[[str], None]) -> None:
    """Fill an empty catalogue, and tell what is done."""
    with closing(open_database(url, Service.CATALOG)) as database:
        if url.startswith("postgresql"):
            _into_postgres(database.engine, url, (files, experiments), say)
            with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as after:
                after.execute(text("ANALYZE"))
        else:  # without ANALYZE: the services plan without statistics on SQLite, and so must what is measured
            connection: Any = database.engine.raw_connection()
            try:
                _into_sqlite(connection, Generated(files, experiments, is_postgres=False), say)
            finally:
                connection.close()


SHARES = (("files",), ("search_terms",), ("versions", "search_files", "search_texts"))
"""Which tables one process fills: about as much work each."""
AT_ONCE = 2
"""So many indexes are made at once."""


def _into_postgres(engine: Any, url: str, what: tuple[int, Sequence[UUID]], say: Callable[[str], None]) -> None:
    """Copy into tables without indexes, each emptied in the transaction that fills it: nothing is logged."""
    with engine.begin() as connection:
        run = connection.exec_driver_sql
        constraints = run(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype IN "
            "('p', 'u', 'f') AND (conrelid::regclass::text = ANY(%s) OR confrelid::regclass::text = ANY(%s)) "
            "ORDER BY contype = 'f' DESC",
            (list(COLUMNS), list(COLUMNS)),
        ).fetchall()
        for table, name, _ in constraints:
            run(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        indexes = run("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s)", (list(COLUMNS),)).all()
        for name, _ in indexes:
            run(f"DROP INDEX {name}")
    with ProcessPoolExecutor(len(SHARES), mp_context=get_context("spawn")) as processes:
        for done in [processes.submit(_share, url, *what, tables) for tables in SHARES]:
            say(f"copied {', '.join(done.result())}")
    foreign = [each for each in constraints if each[2].startswith("FOREIGN")]
    statements = [
        *(statement for _, statement in indexes),
        *(f"ALTER TABLE {of} ADD CONSTRAINT {name} {what}" for of, name, what in constraints if what[:7] != "FOREIGN"),
    ]
    # Those of the same table one after the other: a constraint locks it.
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for table in threads.map(lambda of: _finished(engine, of, statements), COLUMNS):
            say(f"indexed {table}")
    with engine.begin() as connection:
        for of, name, definition in foreign:
            connection.exec_driver_sql(f"ALTER TABLE {of} ADD CONSTRAINT {name} {definition} NOT VALID")
        for table in ("files", "versions", "search_keys", "search_dimensions", "search_experiments", "search_counts"):
            connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}")


def _share(url: str, files: int, experiments: Sequence[UUID], tables: Sequence[str]) -> Sequence[str]:
    """Fill these tables, in a process of its own."""
    made = Generated(files, experiments, is_postgres=True, tables=tables)
    with closing(open_database(url, Service.CATALOG)) as database:
        connection: Any = database.engine.raw_connection()
        cursor = connection.cursor()
        small = SMALL if "search_files" in tables else {}
        cursor.execute(f"TRUNCATE {', '.join((*tables, *small))}")
        for rows in made.chunks():
            for table in tables:
                _copy(cursor, table, COLUMNS[table], rows[table])
        if small:
            for table, lines in made.small().items():
                _copy(cursor, table, SMALL[table], lines)
            cursor.execute(ZONES)
        connection.commit()
        connection.close()
    return tables


def _finished(engine: Any, table: str, statements: Iterable[str]) -> str:
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '1000MB'")
        for statement in statements:
            if re.search(rf"(ON public\.|ALTER TABLE ){table} ", statement):
                connection.exec_driver_sql(statement)
    return table


def _copy(cursor: Any, table: str, columns: str, lines: Sequence[str]) -> None:
    with cursor.copy(f"COPY {table} ({', '.join(columns.split())}) FROM STDIN WITH (FREEZE)") as copy:
        copy.write("".join(lines))


def _into_sqlite(connection: Any, made: Generated, say: Callable[[str], None]) -> None:
    cursor = connection.cursor()
    tables = ", ".join(f"'{name}'" for name in COLUMNS)
    cursor.execute(
        f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL AND tbl_name IN ({tables})"
    )
    indexes = cursor.fetchall()
    for pragma in ("foreign_keys=OFF", "synchronous=OFF", "cache_size=-1000000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute("BEGIN IMMEDIATE")
    for name, _ in indexes:
        cursor.execute(f"DROP INDEX {name}")
    for rows in made.chunks():
        for table, lines in rows.items():
            _insert(cursor, table, COLUMNS[table], lines)
    say("filled")
    for table, lines in made.small().items():
        _insert(cursor, table, SMALL[table], lines)
    cursor.execute(ZONES)
    for _, definition in indexes:
        cursor.execute(definition)
    say("indexed")
    cursor.execute("INSERT INTO search_words (search_words) VALUES ('rebuild')")
    cursor.execute("COMMIT")
    for pragma in ("foreign_keys=ON", "synchronous=FULL", "wal_checkpoint(TRUNCATE)"):
        cursor.execute(f"PRAGMA {pragma}")


def _insert(cursor: Any, table: str, columns: str, lines: Sequence[str]) -> None:
    names = columns.split()
    marks = ", ".join("?" * len(names))
    cursor.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", _rows(names, lines))


def _rows(names: Sequence[str], lines: Iterable[str]) -> Iterator[list[Any]]:
    special = [(place, _READ[name]) for place, name in enumerate(names) if name in _READ]
    for entry in lines:
        for line in entry.splitlines():
            values: list[Any] = line.split("\t")
            for place, read in special:
                values[place] = read(values[place])
            yield values


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value[3:])


def _uid(value: str) -> str:
    return value.replace("-", "")


def _truth(value: str) -> bool:
    return value == "t"


def _or_null(value: str) -> str | None:
    return None if value == "\\N" else value


_READ: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("path", "parent", "source_path"), _bytes),
    **dict.fromkeys(("uid", "experiment_uid"), _uid),
    **dict.fromkeys(("is_snapshot", "is_verified", "is_suspect", "is_partial"), _truth),
    **dict.fromkeys(("num", "text", "shift", "total", "squares", "low", "high", "index_keys"), _or_null),
}
"""How SQLite has the values of columns that PostgreSQL reads from text."""
