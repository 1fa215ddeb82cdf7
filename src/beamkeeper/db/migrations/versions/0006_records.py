"""The catalog service's datasets, runs and provenance, and the history of metadata."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "catalog":
        create_metadata_changes()
        create_datasets()
        create_runs()
        create_derivations()


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


def create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("query", TEXT, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("frozen_at", TIME, nullable=True),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("experiment_uid", "name", name="uq_datasets_experiment_uid_name"),
        sa.UniqueConstraint("uid", name="uq_datasets_uid"),
    )
    op.create_table(
        "dataset_files",
        sa.Column("dataset_id", BIG_ID, nullable=False),
        sa.Column("file_id", BIG_ID, nullable=False),
        sa.Column("version_id", BIG_ID, nullable=True),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("added_by", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name="fk_dataset_files_dataset_id_datasets"),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_dataset_files_file_id_files"),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_dataset_files_version_id_versions"),
        sa.PrimaryKeyConstraint("dataset_id", "file_id", name="pk_dataset_files"),
    )
    op.create_index("ix_dataset_files_file_id", "dataset_files", ["file_id"])


def create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("stopped_at", TIME, nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("experiment_uid", "name", name="uq_runs_experiment_uid_name"),
        sa.UniqueConstraint("uid", name="uq_runs_uid"),
    )
    op.create_table(
        "run_rules",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("type", TEXT, nullable=True),
        sa.Column("path", TEXT, nullable=True),
        sa.Column("field", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("removed_at", TIME, nullable=True),
        sa.Column("applied_at", TIME, nullable=True),
        sa.Column("reached_experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("reached_path", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_run_rules"),
        sa.UniqueConstraint("uid", name="uq_run_rules_uid"),
    )
    op.create_index("ix_run_rules_experiment_uid", "run_rules", ["experiment_uid"])
    op.create_table(
        "run_files",
        sa.Column("run_id", BIG_ID, nullable=False),
        sa.Column("file_id", BIG_ID, nullable=False),
        sa.Column("rule_id", BIG_ID, nullable=True),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_run_files_file_id_files"),
        sa.ForeignKeyConstraint(["rule_id"], ["run_rules.id"], name="fk_run_files_rule_id_run_rules"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_run_files_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "file_id", name="pk_run_files"),
    )
    op.create_index("ix_run_files_file_id", "run_files", ["file_id"])
    op.create_index("ix_run_files_rule_id_file_id", "run_files", ["rule_id", "file_id"])


def create_derivations() -> None:
    op.create_table(
        "derivations",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("derived_id", BIG_ID, nullable=False),
        sa.Column("source_id", BIG_ID, nullable=False),
        sa.Column("job", TEXT, nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("making", DOCUMENT, nullable=True),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("recorded_by", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["derived_id"], ["versions.id"], name="fk_derivations_derived_id_versions"),
        sa.ForeignKeyConstraint(["source_id"], ["versions.id"], name="fk_derivations_source_id_versions"),
        sa.PrimaryKeyConstraint("id", name="pk_derivations"),
        sa.UniqueConstraint("derived_id", "source_id", name="uq_derivations_derived_id_source_id"),
        sa.UniqueConstraint("uid", name="uq_derivations_uid"),
    )
    op.create_index("ix_derivations_source_id", "derivations", ["source_id"])
