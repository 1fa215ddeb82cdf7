"""The processing service's workflows and jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "processing":
        create_workers()
        create_workflows()
        create_jobs()
        create_job_parts()
        create_attempts()


def create_workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("start_ticks", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.UniqueConstraint("uid", name="uq_workers_uid"),
    )


def create_workflows() -> None:
    op.create_table(
        "workflows",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("number", BIG_ID, nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_workflows"),
        sa.UniqueConstraint("uid", name="uq_workflows_uid"),
        sa.UniqueConstraint("owner", "name", name="uq_workflows_owner_name"),
    )
    op.create_table(
        "workflow_versions",
        sa.Column("workflow_id", BIG_ID, nullable=False),
        sa.Column("number", BIG_ID, nullable=False),
        sa.Column("definition", DOCUMENT, nullable=False),
        sa.Column("note", TEXT, nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("added_by", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name="fk_workflow_versions_workflow_id_workflows"),
        sa.PrimaryKeyConstraint("workflow_id", "number", name="pk_workflow_versions"),
    )


def create_jobs() -> None:
    op.create_table(
        "job_definitions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("sha256", TEXT, nullable=False),
        sa.Column("document", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_definitions"),
        sa.UniqueConstraint("sha256", name="uq_job_definitions_sha256"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("owner", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("workflow_uid", sa.Uuid(), nullable=True),
        sa.Column("workflow_name", TEXT, nullable=False),
        sa.Column("workflow_owner", TEXT, nullable=False),
        sa.Column("workflow_version", sa.Integer(), nullable=False),
        sa.Column("definition_id", BIG_ID, nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("run_uid", sa.Uuid(), nullable=True),
        sa.Column("arguments", DOCUMENT, nullable=False),
        sa.Column("variables", DOCUMENT, nullable=False),
        sa.Column("warnings", DOCUMENT, nullable=False),
        sa.Column("count_files", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("completed", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=True),
        sa.Column("rerun_of", sa.Uuid(), nullable=True),
        sa.Column("submitted_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("worker_uid", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["definition_id"], ["job_definitions.id"], name="fk_jobs_definition_id_job_definitions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.UniqueConstraint("uid", name="uq_jobs_uid"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_experiment_uid_id", "jobs", ["experiment_uid", "id"])
    op.create_index("ix_jobs_status_priority_id", "jobs", ["status", "priority", "id"])
    op.create_index("ix_jobs_worker_uid_status", "jobs", ["worker_uid", "status"])
    op.create_index("ix_jobs_owner_id", "jobs", ["owner", "id"])
    op.create_index("ix_jobs_run_uid", "jobs", ["run_uid"])


def create_job_parts() -> None:
    op.create_table(
        "job_files",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("job_id", BIG_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("experiment_path", TEXT, nullable=False),
        sa.Column("variables", DOCUMENT, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_files_job_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_job_files"),
        sa.UniqueConstraint("job_id", "number", name="uq_job_files_job_id_number"),
    )
    op.create_index("ix_job_files_path", "job_files", ["path"])
    op.create_index("ix_job_files_experiment_path", "job_files", ["experiment_path"])
    op.create_table(
        "job_stages",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("job_id", BIG_ID, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=True),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_stages_job_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_job_stages"),
        sa.UniqueConstraint("job_id", "name", name="uq_job_stages_job_id_name"),
    )


def create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("job_id", BIG_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("stage", TEXT, nullable=False),
        sa.Column("file", sa.Integer(), nullable=True),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("command", TEXT, nullable=False),
        sa.Column("working_dir", TEXT, nullable=False),
        sa.Column("account", TEXT, nullable=False),
        sa.Column("environment", DOCUMENT, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("boot_id", TEXT, nullable=False),
        sa.Column("submitted_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("run_time_s", sa.Float(), nullable=True),
        sa.Column("exit_status", sa.Integer(), nullable=True),
        sa.Column("signal", sa.Integer(), nullable=True),
        sa.Column("cause", TEXT, nullable=True),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("left_behind", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_attempts_job_id_jobs"),
        sa.PrimaryKeyConstraint("id", name="pk_attempts"),
        sa.UniqueConstraint("uid", name="uq_attempts_uid"),
        sa.UniqueConstraint("job_id", "number", name="uq_attempts_job_id_number"),
    )
