"""An index of the versions that nobody has read back, so that counting by directory need not read all versions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().opts["service"] == "catalog":
        op.create_index(
            "ix_versions_unverified",
            "versions",
            ["file_id"],
            postgresql_where=sa.text("NOT is_verified"),
            sqlite_where=sa.text("is_verified = 0"),
        )
