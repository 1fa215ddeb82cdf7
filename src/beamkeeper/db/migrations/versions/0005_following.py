"""The catalog service's tables for following: what changed, and how far the site's catalogue has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "catalog":
        create_following()


def create_following() -> None:
    op.create_table(
        "changes",
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("number", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("first_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("last_id", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("kind", "number", "first_id", name="pk_changes"),
    )
    op.create_table(
        "followed",
        sa.Column("station_uid", sa.Uuid(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("epoch", TEXT, nullable=False),
        sa.Column("number", BIG_ID, nullable=False),
        sa.Column("after", sa.Uuid(), nullable=True),
        sa.Column("is_listing", sa.Boolean(), nullable=False),
        sa.Column("heard_at", TIME, nullable=False),
        sa.Column("waiting", BIG_ID, nullable=False),
        sa.Column("refused", sa.Integer(), nullable=False),
        sa.Column("unlisted", sa.Integer(), nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("station_uid", "kind", name="pk_followed"),
    )
    op.create_table(
        "site_link",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("positions", DOCUMENT, nullable=False),
        sa.Column("heard_at", TIME, nullable=True),
        sa.Column("cut_off_since", TIME, nullable=True),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("forgotten", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_site_link"),
    )
