"""What stations keep of files that are still written, and for the time in which they are cut off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "acquisition":
        create_ahead()
        create_unsent()
        create_offline()


def create_ahead() -> None:
    op.create_table(
        "ahead",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("acquisition_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("ino", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("chunks", DOCUMENT, nullable=False),
        sa.Column("owner", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_ahead"),
        sa.UniqueConstraint("acquisition_uid", "path", name="uq_ahead_acquisition_uid_path"),
        sa.UniqueConstraint("uid", name="uq_ahead_uid"),
    )


def create_unsent() -> None:
    op.create_table(
        "unsent_experiments",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("wanted", DOCUMENT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_unsent_experiments"),
        sa.UniqueConstraint("uid", name="uq_unsent_experiments_uid"),
    )


def create_offline() -> None:
    op.create_table(
        "offline_verifiers",
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("password_hash", TEXT, nullable=False),
        sa.Column("password_changed_at", TIME, nullable=True),
        sa.Column("made_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("user_uid", name="pk_offline_verifiers"),
    )
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
