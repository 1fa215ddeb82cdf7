"""Every service's audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("number", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("username", TEXT, nullable=False),
        sa.Column("user_uid", sa.Uuid(), nullable=True),
        sa.Column("session_uid", sa.Uuid(), nullable=True),
        sa.Column("address", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("target", DOCUMENT, nullable=False),
        sa.Column("result", TEXT, nullable=False),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("changes", DOCUMENT, nullable=False),
        sa.Column("more", sa.Integer(), nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_username", "audit_log", ["username"])
    protect(op.get_bind().dialect.name)


def protect(dialect: str) -> None:
    if dialect == "sqlite":
        op.execute(
            "CREATE TRIGGER audit_log_keeps BEFORE UPDATE ON audit_log "
            "BEGIN SELECT RAISE(ABORT, 'rows of the audit log stay as they are'); END"
        )
        op.execute(
            "CREATE TRIGGER audit_log_stays BEFORE DELETE ON audit_log "
            "BEGIN SELECT RAISE(ABORT, 'rows of the audit log stay'); END"
        )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION audit_log_stays() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rows of the audit log stay as they are'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_log_stays()"
    )
