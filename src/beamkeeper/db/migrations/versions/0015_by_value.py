"""Indexes of terms by value first, on PostgreSQL, and a condition that says which kind a query means: see ADR 0040."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_BY_EXPERIMENT = {
    "num": ["key_id", "dimension", "experiment_id", "num", "file_id"],
    "text": ["key_id", "experiment_id", "text", "file_id"],
}
_BY_VALUE = {
    "num": ["key_id", "dimension", "num", "experiment_id", "file_id"],
    "text": ["key_id", "text", "experiment_id", "file_id"],
}


def upgrade() -> None:
    if op.get_context().opts["service"] != "catalog" or op.get_bind().dialect.name != "postgresql":
        return
    for of, columns in _BY_EXPERIMENT.items():
        op.drop_index(f"ix_search_terms_{of}", "search_terms")
        _make(f"ix_search_terms_{of}", columns, f"{of} IS NOT NULL AND file_id > 0")
    for of, columns in _BY_VALUE.items():
        _make(f"ix_search_terms_{of}_value", columns, f"{of} IS NOT NULL AND ordinal >= 0")


def _make(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "search_terms", columns, postgresql_where=sa.text(where))
