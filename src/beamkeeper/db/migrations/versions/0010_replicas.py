"""Copies in further storage areas: what the catalogue has still to see to, and what the storage is asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "catalog":
        create_replica_requests()
        create_replica_orders()
    if op.get_context().opts["service"] == "storage":
        create_copies()
        create_copy_places()


def create_replica_requests() -> None:
    op.create_table(
        "replica_requests",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("storage_area_uid", sa.Uuid(), nullable=True),
        sa.Column("storage_area", TEXT, nullable=False),
        sa.Column("glob", TEXT, nullable=True),
        sa.Column("all_versions", sa.Boolean(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("place", TEXT, nullable=True),
        sa.Column("is_chosen", sa.Boolean(), nullable=False),
        sa.Column("chosen", sa.BigInteger(), nullable=False),
        sa.Column("there", sa.BigInteger(), nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("asked_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_replica_requests"),
        sa.UniqueConstraint("uid", name="uq_replica_requests_uid"),
    )
    op.create_index("ix_replica_requests_experiment_uid", "replica_requests", ["experiment_uid"])
    op.create_index("ix_replica_requests_state", "replica_requests", ["state"])


def create_replica_orders() -> None:
    op.create_table(
        "replica_orders",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("replica_id", BIG_ID, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("storage_area_uid", sa.Uuid(), nullable=False),
        sa.Column("request_id", BIG_ID, nullable=True),
        sa.Column("asked_by", TEXT, nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=True),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("batch_uid", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["replica_id"], ["replicas.id"], name="fk_replica_orders_replica_id_replicas"),
        sa.PrimaryKeyConstraint("id", name="pk_replica_orders"),
        sa.UniqueConstraint("replica_id", name="uq_replica_orders_replica_id"),
    )
    for columns in (["storage_area_uid", "next_at", "id"], ["experiment_uid", "storage_area_uid"], ["request_id"]):
        op.create_index(f"ix_replica_orders_{'_'.join(columns)}", "replica_orders", columns)
    where = sa.text("batch_uid IS NOT NULL")
    op.create_index(
        "ix_replica_orders_batch",
        "replica_orders",
        ["storage_area_uid", "batch_uid"],
        sqlite_where=where,
        postgresql_where=where,
    )


def create_copies() -> None:
    op.create_table(
        "copies",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("storage_area_uid", sa.Uuid(), nullable=False),
        sa.Column("source_area_uid", sa.Uuid(), nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("trouble", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("failed_at", TIME, nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("asked", TEXT, nullable=False),
        sa.Column("answers", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_copies"),
        sa.UniqueConstraint("uid", name="uq_copies_uid"),
    )
    op.create_index("ix_copies_ended_at", "copies", ["ended_at"])
    op.create_index("ix_copies_state_storage_area_uid_next_at", "copies", ["state", "storage_area_uid", "next_at"])


def create_copy_places() -> None:
    op.create_table(
        "copy_places",
        sa.Column("storage_area_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("storage_area_uid", "experiment_uid", name="pk_copy_places"),
    )
