"""The storage service's own tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "storage":
        create_publishes()
        create_storage_tasks()
        create_credentials()
        create_join_tokens()
        create_metadata_changes()


def create_publishes() -> None:
    op.create_table(
        "publishes",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("verify", TEXT, nullable=False),
        sa.Column("trouble", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("asked", TEXT, nullable=False),
        sa.Column("answers", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_publishes"),
        sa.UniqueConstraint("uid", name="uq_publishes_uid"),
    )
    op.create_index("ix_publishes_experiment_uid", "publishes", ["experiment_uid"])
    op.create_index("ix_publishes_state_next_at", "publishes", ["state", "next_at"])


def create_storage_tasks() -> None:
    op.create_table(
        "storage_tasks",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("request", DOCUMENT, nullable=False),
        sa.Column("answer", DOCUMENT, nullable=True),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_storage_tasks"),
        sa.UniqueConstraint("uid", name="uq_storage_tasks_uid"),
    )
    op.create_index("ix_storage_tasks_ended_at", "storage_tasks", ["ended_at"])
    op.create_index("ix_storage_tasks_state_next_at", "storage_tasks", ["state", "next_at"])


def create_credentials() -> None:
    op.create_table(
        "credentials",
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("password_hash", TEXT, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["user_uid"], ["users.uid"], name="fk_credentials_user_uid_users"),
        sa.PrimaryKeyConstraint("user_uid", name="pk_credentials"),
    )


def create_join_tokens() -> None:
    op.create_table(
        "join_tokens",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("token_sha256", TEXT, nullable=False),
        sa.Column("station_uid", sa.Uuid(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["station_uid"], ["stations.uid"], name="fk_join_tokens_station_uid_stations"),
        sa.PrimaryKeyConstraint("id", name="pk_join_tokens"),
        sa.UniqueConstraint("token_sha256", name="uq_join_tokens_token_sha256"),
    )


def create_metadata_changes() -> None:
    op.create_table(
        "metadata_changes",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("subject_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.Column("changed_by", TEXT, nullable=False),
        sa.Column("patch", DOCUMENT, nullable=False),
        sa.Column("before", DOCUMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_metadata_changes"),
        sa.UniqueConstraint("uid", name="uq_metadata_changes_uid"),
    )
    op.create_index("ix_metadata_changes_subject_uid_id", "metadata_changes", ["subject_uid", "id"])
