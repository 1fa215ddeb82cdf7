"""PostgreSQL no longer keeps the foreign keys of what is registered in bulk: see ADR 0036."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_KEYS = {
    "versions": "fk_versions_file_id_files",
    "checksums": "fk_checksums_version_id_versions",
    "replicas": "fk_replicas_version_id_versions",
    "verifications": "fk_verifications_replica_id_replicas",
}


def upgrade() -> None:
    if op.get_context().opts["service"] == "catalog" and op.get_bind().dialect.name == "postgresql":
        for table, key in _KEYS.items():
            op.drop_constraint(key, table, type_="foreignkey")
