"""The storage service's tables for people: who fails to log in, who left, proposals, and syncs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "storage":
        create_login_attempts()
        create_departures()
        create_proposals()
        create_syncs()


def create_login_attempts() -> None:
    op.create_table(
        "login_attempts",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_login_attempts"),
        sa.UniqueConstraint("key", name="uq_login_attempts_key"),
    )
    op.create_index("ix_login_attempts_last_at", "login_attempts", ["last_at"])


def create_departures() -> None:
    op.create_table(
        "departures",
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("left_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("user_uid", name="pk_departures"),
    )


def create_proposals() -> None:
    op.create_table(
        "proposals",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("number", TEXT, nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_proposals"),
        sa.UniqueConstraint("kind", "number", name="uq_proposals_kind_number"),
    )


def create_syncs() -> None:
    op.create_table(
        "syncs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("asked_by", TEXT, nullable=False),
        sa.Column("request", DOCUMENT, nullable=False),
        sa.Column("report", DOCUMENT, nullable=True),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_syncs"),
        sa.UniqueConstraint("uid", name="uq_syncs_uid"),
    )
    op.create_index("ix_syncs_state", "syncs", ["state"])
