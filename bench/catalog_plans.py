"""How each query of the bench is answered: its statements and the database's own plans, as a page of the docs."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import catalog_data as data
from sqlalchemy import event

from beamkeeper.db import open_database
from beamkeeper.domain.files import FileQuery
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import Reach

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/catalogue-plans"
WIDTH = 180


def plans(url: str, name: str) -> None:
    """Write the plans of every query on a database that is loaded."""
    kind = "postgresql" if url.startswith("postgresql") else "sqlite"
    lines = [
        f"# Plans of the catalogue's queries: {name.partition(',')[0]}",
        "",
        f"Written by `make bench-catalog` on {datetime.now(UTC):%Y-%m-%d} ({name}). Of each query the statement that "
        "finds files is shown as the database plans it; those before it look up keys and counts.",
        "",
    ]
    with closing(open_database(url, Service.CATALOG)) as database:
        seen: list[tuple[str, Any]] = []

        @event.listens_for(database.engine, "before_cursor_execute")
        def _(_c: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
            seen.append((statement, parameters))

        for title, query in data.QUERIES:
            seen.clear()
            with database.read() as tx:
                tx.files.find(FileQuery(query=query, limit=100), Reach(is_all=True))
            finding = [each for each in seen if " AS met" in each[0]]
            lines += [f"## {title[0].upper()}{title[1:]}", "", f"`{query}`", "", "```text"]
            lines += _explained(database.engine, *finding[-1], kind)
            lines += ["```", ""]
    PAGE.with_name(f"{PAGE.name}-{kind}.md").write_text("\n".join(lines))


def _explained(engine: Any, statement: str, parameters: Any, kind: str) -> list[str]:
    prefix = "EXPLAIN (COSTS OFF) " if kind == "postgresql" else "EXPLAIN QUERY PLAN "
    with engine.connect() as connection:
        if kind == "postgresql":
            connection.exec_driver_sql("SET LOCAL max_parallel_workers_per_gather = 0")  # as searches have it
        rows = connection.exec_driver_sql(prefix + statement, parameters).fetchall()
    if kind == "postgresql":
        return [row[0][:WIDTH] for row in rows]
    depth: dict[int, int] = {0: 0}
    found = []
    for id_, parent, _, text in rows:
        depth[id_] = depth.get(parent, 0) + 1
        found.append("  " * (depth[id_] - 1) + text[:WIDTH])
    return found
