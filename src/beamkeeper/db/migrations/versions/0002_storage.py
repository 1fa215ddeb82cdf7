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
        create_downloads()
        create_deliveries()
        create_station_commands()
        create_thumbnails()


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


def create_downloads() -> None:
    op.create_table(
        "file_sets",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", BIG_ID, nullable=False),
        sa.Column("size", BIG_ID, nullable=False),
        sa.Column("is_frozen", sa.Boolean(), nullable=False),
        sa.Column("etag", TEXT, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_file_sets"),
        sa.UniqueConstraint("uid", name="uq_file_sets_uid"),
    )
    op.create_index("ix_file_sets_created_at", "file_sets", ["created_at"])
    op.create_table(
        "file_set_items",
        sa.Column("set_id", BIG_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("size", BIG_ID, nullable=False),
        sa.Column("modified_s", BIG_ID, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("checksum", TEXT, nullable=False),
        sa.Column("link_target", sa.LargeBinary(), nullable=True),
        sa.Column("begin", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("set_id", "position", name="pk_file_set_items"),
    )
    op.create_index("ix_file_set_items_set_id_begin", "file_set_items", ["set_id", "begin"])
    op.create_table(
        "links",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("token_sha256", TEXT, nullable=False),
        sa.Column("set_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("size", BIG_ID, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.Column("downloads", sa.Integer(), nullable=False),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_links"),
        sa.UniqueConstraint("uid", name="uq_links_uid"),
        sa.UniqueConstraint("token_sha256", name="uq_links_token_sha256"),
    )
    op.create_index("ix_links_experiment_uid", "links", ["experiment_uid"])


def create_deliveries() -> None:
    op.create_table(
        "sharing",
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("is_allowed", sa.Boolean(), nullable=False),
        sa.Column("decided_by", TEXT, nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("experiment_uid", name="pk_sharing"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("username", TEXT, nullable=False),
        sa.Column("link_uid", sa.Uuid(), nullable=True),
        sa.Column("set_uid", sa.Uuid(), nullable=True),
        sa.Column("path", sa.LargeBinary(), nullable=True),
        sa.Column("size", BIG_ID, nullable=False),
        sa.Column("first_byte", BIG_ID, nullable=False),
        sa.Column("end_byte", BIG_ID, nullable=False),
        sa.Column("is_whole", sa.Boolean(), nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("begun_at", TIME, nullable=False),
        sa.Column("heard_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
        sa.UniqueConstraint("uid", name="uq_deliveries_uid"),
    )
    op.create_index("ix_deliveries_experiment_uid_id", "deliveries", ["experiment_uid", "id"])


def create_station_commands() -> None:
    op.create_table(
        "station_commands",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("station_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("asked_by", TEXT, nullable=False),
        sa.Column("bound_experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("identities", BIG_ID, nullable=False),
        sa.Column("request", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("is_done", sa.Boolean(), nullable=True),
        sa.Column("code", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("answer", DOCUMENT, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_station_commands"),
        sa.UniqueConstraint("uid", name="uq_station_commands_uid"),
    )
    op.create_index("ix_station_commands_station_uid_id", "station_commands", ["station_uid", "id"])


def create_thumbnails() -> None:
    op.create_table(
        "thumbnails",
        sa.Column("version_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.Column("png", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("version_uid", name="pk_thumbnails"),
    )
    op.create_index("ix_thumbnails_experiment_uid", "thumbnails", ["experiment_uid"])
