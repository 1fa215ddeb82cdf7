"""Between which times the files of each stretch of numbers were changed, so that a search may pass stretches by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    if op.get_context().opts["service"] == "catalog":
        op.create_table(
            "search_zones",
            sa.Column("zone", BIG_ID, autoincrement=False, nullable=False),
            sa.Column("low", sa.BigInteger(), nullable=False),
            sa.Column("high", sa.BigInteger(), nullable=False),
            sa.PrimaryKeyConstraint("zone", name="pk_search_zones"),
        )
        op.execute(
            "INSERT INTO search_zones (zone, low, high) "
            "SELECT file_id / 4096, MIN(modified_at), MAX(modified_at) FROM search_files GROUP BY 1"
        )
