"""The tables of identities and of the feed, which every service has."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    create_events()
    create_sequence()
    create_storage_areas()
    create_users()
    create_stations()
    create_experiment_types()
    create_experiments()
    create_grants()
    create_sessions()
    if op.get_context().opts["service"] != "storage":
        create_mirror_state()
    begin_sequence()


def begin_sequence() -> None:
    sequence = sa.table("sequence", sa.column("id"), sa.column("epoch"), sa.column("number"))
    op.bulk_insert(sequence, [{"id": 1, "epoch": uuid4().hex, "number": 0}])


def create_events() -> None:
    op.create_table(
        "events",
        sa.Column("number", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("station_uid", sa.Uuid(), nullable=True),
        sa.Column("experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("data", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_events"),
    )
    op.create_index("ix_events_experiment_uid", "events", ["experiment_uid"])


def create_mirror_state() -> None:
    op.create_table(
        "mirror_state",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("epoch", TEXT, nullable=False),
        sa.Column("number", BIG_ID, nullable=False),
        sa.Column("heard_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mirror_state"),
    )


def create_sequence() -> None:
    op.create_table(
        "sequence",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("epoch", TEXT, nullable=False),
        sa.Column("number", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sequence"),
    )


def create_storage_areas() -> None:
    op.create_table(
        "storage_areas",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("station_url", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("transfer", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("revision", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_storage_areas"),
        sa.UniqueConstraint("name", name="uq_storage_areas_name"),
        sa.UniqueConstraint("uid", name="uq_storage_areas_uid"),
    )
    op.create_index("ix_storage_areas_revision", "storage_areas", ["revision"])


def create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("number", BIG_ID, nullable=False),
        sa.Column("username", TEXT, nullable=False),
        sa.Column("full_name", TEXT, nullable=False),
        sa.Column("email", TEXT, nullable=False),
        sa.Column("badge", TEXT, nullable=False),
        sa.Column("institution", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("password_changed_at", TIME, nullable=True),
        sa.Column("revision", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("number", name="uq_users_number"),
        sa.UniqueConstraint("uid", name="uq_users_uid"),
        sa.UniqueConstraint("username", name="uq_users_username"),
    )
    op.create_index("ix_users_revision", "users", ["revision"])
    op.create_index("ix_users_source", "users", ["source"])


def create_stations() -> None:
    op.create_table(
        "stations",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("timezone", TEXT, nullable=False),
        sa.Column("layout", TEXT, nullable=False),
        sa.Column("cycle", TEXT, nullable=False),
        sa.Column("storage_area_uid", sa.Uuid(), nullable=True),
        sa.Column("catalog_url", TEXT, nullable=False),
        sa.Column("acquisition_url", TEXT, nullable=False),
        sa.Column("processing_url", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("revision", BIG_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["storage_area_uid"], ["storage_areas.uid"], name="fk_stations_storage_area_uid_storage_areas"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_stations"),
        sa.UniqueConstraint("name", name="uq_stations_name"),
        sa.UniqueConstraint("uid", name="uq_stations_uid"),
    )
    op.create_index("ix_stations_revision", "stations", ["revision"])


def create_experiments() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("number", BIG_ID, nullable=False),
        sa.Column("station_uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=True),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("proposal", TEXT, nullable=False),
        sa.Column("esaf", TEXT, nullable=False),
        sa.Column("pi", TEXT, nullable=True),
        sa.Column("cycle", TEXT, nullable=False),
        sa.Column("starts_at", TIME, nullable=True),
        sa.Column("ends_at", TIME, nullable=True),
        sa.Column("publicity", TEXT, nullable=False),
        sa.Column("embargo_until", TIME, nullable=True),
        sa.Column("licence", TEXT, nullable=False),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("storage_area_uid", sa.Uuid(), nullable=False),
        sa.Column("directory", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.Column("revision", BIG_ID, nullable=False),
        sa.ForeignKeyConstraint(["station_uid"], ["stations.uid"], name="fk_experiments_station_uid_stations"),
        sa.ForeignKeyConstraint(
            ["storage_area_uid"], ["storage_areas.uid"], name="fk_experiments_storage_area_uid_storage_areas"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_experiments"),
        sa.UniqueConstraint("number", name="uq_experiments_number"),
        sa.UniqueConstraint("station_uid", "name", name="uq_experiments_station_uid_name"),
        sa.UniqueConstraint("uid", name="uq_experiments_uid"),
    )
    op.create_index("ix_experiments_publicity", "experiments", ["publicity"])
    op.create_index("ix_experiments_revision", "experiments", ["revision"])
    op.create_index("ix_experiments_storage_area_uid_directory", "experiments", ["storage_area_uid", "directory"])


def create_grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("station_uid", sa.Uuid(), nullable=True),
        sa.Column("experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("is_revoked", sa.Boolean(), nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("revision", BIG_ID, nullable=False),
        sa.ForeignKeyConstraint(["experiment_uid"], ["experiments.uid"], name="fk_grants_experiment_uid_experiments"),
        sa.ForeignKeyConstraint(["station_uid"], ["stations.uid"], name="fk_grants_station_uid_stations"),
        sa.ForeignKeyConstraint(["user_uid"], ["users.uid"], name="fk_grants_user_uid_users"),
        sa.PrimaryKeyConstraint("id", name="pk_grants"),
        sa.UniqueConstraint("uid", name="uq_grants_uid"),
        sa.UniqueConstraint("user_uid", "scope", "role", name="uq_grants_user_uid_scope_role"),
    )
    op.create_index("ix_grants_experiment_uid", "grants", ["experiment_uid"])
    op.create_index("ix_grants_revision", "grants", ["revision"])


def create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("token_sha256", TEXT, nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=True),
        sa.Column("station_uid", sa.Uuid(), nullable=True),
        sa.Column("experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("scopes", DOCUMENT, nullable=True),
        sa.Column("password_mark", TEXT, nullable=True),
        sa.Column("revision", BIG_ID, nullable=False),
        sa.ForeignKeyConstraint(["experiment_uid"], ["experiments.uid"], name="fk_sessions_experiment_uid_experiments"),
        sa.ForeignKeyConstraint(["station_uid"], ["stations.uid"], name="fk_sessions_station_uid_stations"),
        sa.ForeignKeyConstraint(["user_uid"], ["users.uid"], name="fk_sessions_user_uid_users"),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
        sa.UniqueConstraint("token_sha256", name="uq_sessions_token_sha256"),
        sa.UniqueConstraint("uid", name="uq_sessions_uid"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_index("ix_sessions_revision", "sessions", ["revision"])
    op.create_index("ix_sessions_user_uid", "sessions", ["user_uid"])


def create_experiment_types() -> None:
    op.create_table(
        "experiment_types",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=False),
        sa.Column("index_keys", DOCUMENT, nullable=True),
        sa.Column("revision", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_experiment_types"),
        sa.UniqueConstraint("name", name="uq_experiment_types_name"),
        sa.UniqueConstraint("uid", name="uq_experiment_types_uid"),
    )
    op.create_index("ix_experiment_types_revision", "experiment_types", ["revision"])
