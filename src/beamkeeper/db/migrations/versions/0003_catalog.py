"""The catalog service's own tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "catalog":
        create_files()
        create_versions()
        create_checksums()
        create_replicas()
        create_verifications()


def create_files() -> None:
    op.create_table(
        "files",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("path_shown", TEXT, nullable=False),
        sa.Column("parent", sa.LargeBinary(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source_agent", TEXT, nullable=False),
        sa.Column("source_path", sa.LargeBinary(), nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("annotations", DOCUMENT, nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.Column("deleted_by", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.UniqueConstraint("experiment_uid", "path", name="uq_files_experiment_uid_path"),
        sa.UniqueConstraint("uid", name="uq_files_uid"),
    )


def create_versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("file_id", BIG_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("identity", DOCUMENT, nullable=False),
        sa.Column("link_target", TEXT, nullable=True),
        sa.Column("chunks", DOCUMENT, nullable=True),
        sa.Column("is_snapshot", sa.Boolean(), nullable=False),
        sa.Column("is_verified", sa.Boolean(), nullable=False),
        sa.Column("modified_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=False),
        sa.Column("transferred_at", TIME, nullable=False),
        sa.Column("verified_at", TIME, nullable=True),
        sa.Column("catalogued_at", TIME, nullable=False),
        sa.Column("is_suspect", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_versions_file_id_files"),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint("file_id", "number", name="uq_versions_file_id_number"),
        sa.UniqueConstraint("uid", name="uq_versions_uid"),
    )


def create_checksums() -> None:
    op.create_table(
        "checksums",
        sa.Column("version_id", BIG_ID, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_checksums_version_id_versions"),
        sa.PrimaryKeyConstraint("version_id", "algorithm", name="pk_checksums"),
    )


def create_replicas() -> None:
    op.create_table(
        "replicas",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("version_id", BIG_ID, nullable=False),
        sa.Column("storage_area_uid", sa.Uuid(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("verified_at", TIME, nullable=True),
        sa.Column("checked_at", TIME, nullable=False),
        sa.Column("is_to_read", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_replicas_version_id_versions"),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
        sa.UniqueConstraint("uid", name="uq_replicas_uid"),
        sa.UniqueConstraint("version_id", "storage_area_uid", name="uq_replicas_version_id_storage_area_uid"),
    )
    op.create_index("ix_replicas_checked_at_uid", "replicas", ["checked_at", "uid"])
    op.create_index(
        "ix_replicas_to_read",
        "replicas",
        ["uid"],
        postgresql_where=sa.text("is_to_read"),
        sqlite_where=sa.text("is_to_read = 1"),
    )


def create_verifications() -> None:
    op.create_table(
        "verifications",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("replica_id", BIG_ID, nullable=False),
        sa.Column("verified_at", TIME, nullable=False),
        sa.Column("is_match", sa.Boolean(), nullable=False),
        sa.Column("read_from", TEXT, nullable=False),
        sa.Column("algorithm", TEXT, nullable=True),
        sa.Column("value", TEXT, nullable=True),
        sa.Column("by", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["replica_id"], ["replicas.id"], name="fk_verifications_replica_id_replicas"),
        sa.PrimaryKeyConstraint("id", name="pk_verifications"),
        sa.UniqueConstraint("uid", name="uq_verifications_uid"),
    )
    op.create_index("ix_verifications_replica_id", "verifications", ["replica_id"])
