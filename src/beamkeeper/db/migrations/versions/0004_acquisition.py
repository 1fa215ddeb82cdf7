"""The acquisition service's own tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.BigInteger()
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    if op.get_context().opts["service"] == "acquisition":
        create_acquisitions()
        create_journal()
        create_stagings()
        create_pauses()
        create_workers()
        create_wipes()
        create_wipe_entries()
        create_holds()
        create_inspections()
        create_findings()
        create_announcements()
        create_masters()
        create_job_requests()
        create_pictures()


def create_acquisitions() -> None:
    op.create_table(
        "acquisitions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment", TEXT, nullable=False),
        sa.Column("agent", TEXT, nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("destination", TEXT, nullable=False),
        sa.Column("tree", TEXT, nullable=False),
        sa.Column("include", DOCUMENT, nullable=False),
        sa.Column("exclude", DOCUMENT, nullable=False),
        sa.Column("with_hidden", sa.Boolean(), nullable=False),
        sa.Column("with_existing", sa.Boolean(), nullable=False),
        sa.Column("resend", sa.Boolean(), nullable=False),
        sa.Column("finished", TEXT, nullable=False),
        sa.Column("quiet_s", sa.Double(), nullable=True),
        sa.Column("metadata", DOCUMENT, nullable=False),
        sa.Column("processors", DOCUMENT, nullable=True),
        sa.Column("skip_processors", DOCUMENT, nullable=False),
        sa.Column("max_run_time_s", sa.Double(), nullable=True),
        sa.Column("is_put", sa.Boolean(), nullable=False),
        sa.Column("policy", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("started_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("stop_requested_at", TIME, nullable=True),
        sa.Column("stop_now", sa.Boolean(), nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("taken_over_by", sa.Uuid(), nullable=True),
        sa.Column("taken_over_at", TIME, nullable=True),
        sa.Column("existing_before", TIME, nullable=True),
        sa.Column("poll", sa.Boolean(), nullable=False),
        sa.Column("sentinel", TEXT, nullable=True),
        sa.Column("root", DOCUMENT, nullable=True),
        sa.Column("verify", TEXT, nullable=False),
        sa.Column("also", DOCUMENT, nullable=False),
        sa.Column("first", DOCUMENT, nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("is_retry", sa.Boolean(), nullable=False),
        sa.Column("workflow", DOCUMENT, nullable=True),
        sa.Column("made_by", DOCUMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_acquisitions"),
        sa.UniqueConstraint("uid", name="uq_acquisitions_uid"),
    )
    op.create_index("ix_acquisitions_created_at_uid", "acquisitions", ["created_at", "uid"])
    op.create_index("ix_acquisitions_experiment_uid", "acquisitions", ["experiment_uid"])
    op.create_index("ix_acquisitions_state", "acquisitions", ["state"])
    op.create_index("ix_acquisitions_taken_over_by", "acquisitions", ["taken_over_by"])


def create_journal() -> None:
    op.create_table(
        "journal",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("acquisition_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("directory", sa.LargeBinary(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("reason_code", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("dev", sa.BigInteger(), nullable=True),
        sa.Column("ino", sa.BigInteger(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("ctime_ns", sa.BigInteger(), nullable=True),
        sa.Column("version_uid", sa.Uuid(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("is_snapshot", sa.Boolean(), nullable=False),
        sa.Column("checksums", DOCUMENT, nullable=True),
        sa.Column("chunks", DOCUMENT, nullable=True),
        sa.Column("link_target", sa.LargeBinary(), nullable=True),
        sa.Column("batch_uid", sa.Uuid(), nullable=True),
        sa.Column("lease", sa.Uuid(), nullable=True),
        sa.Column("lease_owner", sa.Uuid(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=True),
        sa.Column("first_seen_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("ready_at", TIME, nullable=True),
        sa.Column("staged_at", TIME, nullable=True),
        sa.Column("stored_at", TIME, nullable=True),
        sa.Column("read_from", TEXT, nullable=True),
        sa.Column("available_at", TIME, nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_journal"),
        sa.UniqueConstraint("acquisition_uid", "path", name="uq_journal_acquisition_uid_path"),
        sa.UniqueConstraint("uid", name="uq_journal_uid"),
    )
    op.create_index("ix_journal_acquisition_uid_directory", "journal", ["acquisition_uid", "directory"])
    op.create_index("ix_journal_acquisition_uid_state", "journal", ["acquisition_uid", "state"])
    op.create_index("ix_journal_batch_uid", "journal", ["batch_uid"])
    op.create_index("ix_journal_lease_owner", "journal", ["lease_owner"])
    op.create_index("ix_journal_state_priority_next_at", "journal", ["state", "priority", "next_at"])


def create_stagings() -> None:
    op.create_table(
        "stagings",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("batch_uid", sa.Uuid(), nullable=False),
        sa.Column("acquisition_uid", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_stagings"),
        sa.UniqueConstraint("batch_uid", name="uq_stagings_batch_uid"),
    )


def create_pauses() -> None:
    op.create_table(
        "pauses",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("storage_area_uid", sa.Uuid(), nullable=False),
        sa.Column("trouble", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("failed_at", TIME, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("wanted_bytes", sa.BigInteger(), nullable=False),
        sa.Column("is_trial", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pauses"),
        sa.UniqueConstraint("storage_area_uid", name="uq_pauses_storage_area_uid"),
    )


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


def create_announcements() -> None:
    op.create_table(
        "announcements",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("acquisition_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("announced_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_announcements"),
        sa.UniqueConstraint("acquisition_uid", "path", name="uq_announcements_acquisition_uid_path"),
        sqlite_autoincrement=True,
    )


def create_masters() -> None:
    op.create_table(
        "masters",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("acquisition_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("version_uid", sa.Uuid(), nullable=False),
        sa.Column("linked", sa.Integer(), nullable=False),
        sa.Column("unread", sa.Integer(), nullable=False),
        sa.Column("missing", DOCUMENT, nullable=False),
        sa.Column("is_complete", sa.Boolean(), nullable=False),
        sa.Column("is_told", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("checked_at", TIME, nullable=True),
        sa.Column("next_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_masters"),
        sa.UniqueConstraint("experiment_uid", "path", name="uq_masters_experiment_uid_path"),
    )
    op.create_index("ix_masters_acquisition_uid", "masters", ["acquisition_uid"])
    op.create_index("ix_masters_next_at", "masters", ["next_at"])


def create_wipes() -> None:
    op.create_table(
        "wipes",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("agent", TEXT, nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("is_safe", sa.Boolean(), nullable=True),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("min_age_hours", sa.Double(), nullable=False),
        sa.Column("within_days", sa.Double(), nullable=False),
        sa.Column("max_files", sa.Integer(), nullable=False),
        sa.Column("proven_files", sa.Integer(), nullable=False),
        sa.Column("proven_bytes", sa.BigInteger(), nullable=False),
        sa.Column("not_proven", DOCUMENT, nullable=False),
        sa.Column("directories", sa.Integer(), nullable=False),
        sa.Column("not_seen_open", sa.Integer(), nullable=False),
        sa.Column("remove_directories", sa.Boolean(), nullable=False),
        sa.Column("deleted_files", sa.Integer(), nullable=False),
        sa.Column("deleted_bytes", sa.BigInteger(), nullable=False),
        sa.Column("kept", DOCUMENT, nullable=False),
        sa.Column("removed_directories", sa.Integer(), nullable=False),
        sa.Column("list_file", TEXT, nullable=False),
        sa.Column("planned_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("planned_at", TIME, nullable=True),
        sa.Column("run_by", TEXT, nullable=True),
        sa.Column("run_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("owner", sa.Uuid(), nullable=True),
        sa.Column("is_glance", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_wipes"),
        sa.UniqueConstraint("uid", name="uq_wipes_uid"),
    )
    op.create_index("ix_wipes_created_at_uid", "wipes", ["created_at", "uid"])
    op.create_index("ix_wipes_state", "wipes", ["state"])


def create_wipe_entries() -> None:
    op.create_table(
        "wipe_entries",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("wipe_id", BIG_ID, nullable=False),
        sa.Column("path_key", sa.LargeBinary(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=True),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("dev", sa.BigInteger(), nullable=True),
        sa.Column("ino", sa.BigInteger(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("ctime_ns", sa.BigInteger(), nullable=True),
        sa.Column("version_uid", sa.Uuid(), nullable=True),
        sa.Column("replica_uid", sa.Uuid(), nullable=True),
        sa.Column("by", TEXT, nullable=True),
        sa.Column("at", TIME, nullable=True),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["wipe_id"], ["wipes.id"], name="fk_wipe_entries_wipe_id_wipes"),
        sa.PrimaryKeyConstraint("id", name="pk_wipe_entries"),
        sa.UniqueConstraint("wipe_id", "path_key", name="uq_wipe_entries_wipe_id_path_key"),
    )


def create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("agent", TEXT, nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("why", TEXT, nullable=False),
        sa.Column("by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
        sa.UniqueConstraint("uid", name="uq_holds_uid"),
    )


def create_inspections() -> None:
    op.create_table(
        "inspections",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=True),
        sa.Column("experiment", TEXT, nullable=True),
        sa.Column("options", DOCUMENT, nullable=False),
        sa.Column("counts", DOCUMENT, nullable=False),
        sa.Column("place", TEXT, nullable=True),
        sa.Column("started_by", TEXT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("stop_requested_at", TIME, nullable=True),
        sa.Column("ended_at", TIME, nullable=True),
        sa.Column("owner", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_inspections"),
        sa.UniqueConstraint("uid", name="uq_inspections_uid"),
    )
    op.create_index("ix_inspections_experiment_uid", "inspections", ["experiment_uid"])
    op.create_index("ix_inspections_kind_created_at_uid", "inspections", ["kind", "created_at", "uid"])
    op.create_index("ix_inspections_kind_state", "inspections", ["kind", "state"])


def create_findings() -> None:
    op.create_table(
        "findings",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("inspection_id", BIG_ID, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("path_key", sa.LargeBinary(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=True),
        sa.Column("version_uid", sa.Uuid(), nullable=True),
        sa.Column("replica_uid", sa.Uuid(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("is_confirmed", sa.Boolean(), nullable=False),
        sa.Column("found_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["inspection_id"], ["inspections.id"], name="fk_findings_inspection_id_inspections"),
        sa.PrimaryKeyConstraint("id", name="pk_findings"),
        sa.UniqueConstraint("uid", name="uq_findings_uid"),
    )
    op.create_index("ix_findings_inspection_id_path_key", "findings", ["inspection_id", "path_key"])


def create_job_requests() -> None:
    op.create_table(
        "job_requests",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("acquisition_uid", sa.Uuid(), nullable=False),
        sa.Column("version_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=False),
        sa.Column("job_uid", sa.Uuid(), nullable=True),
        sa.Column("run_uid", sa.Uuid(), nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_job_requests"),
        sa.UniqueConstraint("acquisition_uid", "version_uid", name="uq_job_requests_acquisition_uid_version_uid"),
    )
    op.create_index("ix_job_requests_acquisition_uid_path", "job_requests", ["acquisition_uid", "path"])
    op.create_index("ix_job_requests_job_uid", "job_requests", ["job_uid"])
    op.create_index("ix_job_requests_source", "job_requests", ["source"])
    op.create_index("ix_job_requests_state_next_at", "job_requests", ["state", "next_at"])


def create_pictures() -> None:
    op.create_table(
        "pictures",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("version_uid", sa.Uuid(), nullable=False),
        sa.Column("experiment_uid", sa.Uuid(), nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("processor", TEXT, nullable=False),
        sa.Column("told", DOCUMENT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("next_at", TIME, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pictures"),
        sa.UniqueConstraint("version_uid", name="uq_pictures_version_uid"),
    )
    op.create_index("ix_pictures_next_at_id", "pictures", ["next_at", "id"])
