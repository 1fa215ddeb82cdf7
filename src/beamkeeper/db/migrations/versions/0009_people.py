"""The storage service's tables for people: who fails to log in, who left, proposals, syncs, and identities."""

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
        create_identities()
        create_experiment_groups()
        create_permission_walks()


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
        sa.Column("title", TEXT, nullable=False),
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


def create_identities() -> None:
    op.create_table(
        "identities",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("issuer", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("linked_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.ForeignKeyConstraint(["user_uid"], ["users.uid"], name="fk_identities_user_uid_users"),
        sa.UniqueConstraint("uid", name="uq_identities_uid"),
        sa.UniqueConstraint("issuer", "subject", name="uq_identities_issuer_subject"),
    )
    op.create_index("ix_identities_user_uid", "identities", ["user_uid"])
    op.create_table(
        "identity_logins",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("secret_sha256", TEXT, nullable=False),
        sa.Column("secrets", DOCUMENT, nullable=False),
        sa.Column("provider", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=True),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("interval_s", sa.Double(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identity_logins"),
        sa.UniqueConstraint("secret_sha256", name="uq_identity_logins_secret_sha256"),
    )
    op.create_index("ix_identity_logins_source", "identity_logins", ["source"])
    op.create_index("ix_identity_logins_expires_at", "identity_logins", ["expires_at"])


def create_experiment_groups() -> None:
    op.create_table(
        "experiment_groups",
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("gid", BIG_ID, nullable=True),
        sa.Column("applied_gid", BIG_ID, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("difference", DOCUMENT, nullable=False),
        sa.Column("is_repair", sa.Boolean(), nullable=False),
        sa.Column("asked_by", TEXT, nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("tried_at", TIME, nullable=True),
        sa.Column("looked_at", TIME, nullable=True),
        sa.Column("is_known_to_host", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("experiment_uid", name="pk_experiment_groups"),
        sa.ForeignKeyConstraint(
            ["experiment_uid"], ["experiments.uid"], name="fk_experiment_groups_experiment_uid_experiments"
        ),
        sa.UniqueConstraint("name", name="uq_experiment_groups_name"),
        sa.UniqueConstraint("gid", name="uq_experiment_groups_gid"),
    )


def create_permission_walks() -> None:
    op.create_table(
        "permission_walks",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("mode", TEXT, nullable=False),
        sa.Column("rate", sa.Integer(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("asked_by", TEXT, nullable=False),
        sa.Column("counts", DOCUMENT, nullable=False),
        sa.Column("faults", DOCUMENT, nullable=False),
        sa.Column("place", TEXT, nullable=False),
        sa.Column("is_stop_requested", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_permission_walks"),
        sa.UniqueConstraint("uid", name="uq_permission_walks_uid"),
    )
    op.create_index("ix_permission_walks_state_id", "permission_walks", ["state", "id"])
    op.create_index("ix_permission_walks_experiment_uid_id", "permission_walks", ["experiment_uid", "id"])
