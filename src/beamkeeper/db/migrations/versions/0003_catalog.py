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
        create_search()


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


def create_search() -> None:
    create_search_names()
    create_search_files()
    create_search_terms()
    create_search_texts()
    create_search_counts()


def create_search_names() -> None:
    op.create_table(
        "search_changes",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("first_id", BIG_ID, nullable=False),
        sa.Column("last_id", BIG_ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_changes"),
    )
    op.create_table(
        "search_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_keys"),
        sa.UniqueConstraint("key", name="uq_search_keys_key"),
    )
    op.create_table(
        "search_dimensions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_dimensions"),
        sa.UniqueConstraint("name", name="uq_search_dimensions_name"),
    )
    op.create_table(
        "search_experiments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("uid", sa.Uuid(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("index_keys", DOCUMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_search_experiments"),
        sa.UniqueConstraint("uid", name="uq_search_experiments_uid"),
    )


def create_search_files() -> None:
    op.create_table(
        "search_files",
        sa.Column("file_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("is_partial", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", TIME, nullable=False),
        sa.Column("directory_id", sa.Integer(), nullable=False),
        sa.Column("type_id", sa.Integer(), nullable=False),
        sa.Column("day_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", name="pk_search_files"),
    )
    for of in (
        ("experiment_id", "size"),
        ("experiment_id", "modified_at"),
        ("experiment_id",),
        ("directory_id",),
        ("type_id",),
    ):
        columns = [*of, "file_id"]
        op.create_index(f"ix_search_files_{'_'.join(columns)}", "search_files", columns)
    op.create_index(
        "ix_search_files_partial",
        "search_files",
        ["experiment_id", "file_id"],
        sqlite_where=sa.text("is_partial = 1"),
        postgresql_where=sa.text("is_partial"),
    )


def create_search_terms() -> None:
    op.create_table(
        "search_terms",
        sa.Column("file_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("key_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("dimension", sa.SmallInteger(), nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("num", sa.Double(), nullable=True),
        sa.Column("text", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("file_id", "key_id", "ordinal", name="pk_search_terms"),
        sqlite_with_rowid=False,
    )
    for column, of in (("num", ["key_id", "dimension"]), ("text", ["key_id"])):
        where = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"ix_search_terms_{column}",
            "search_terms",
            [*of, "experiment_id", column, "file_id"],
            sqlite_where=where,
            postgresql_where=where,
        )
    where = sa.text("ordinal > 0 AND dimension <= 0")
    op.create_index(
        "ix_search_terms_lists",
        "search_terms",
        ["key_id", "experiment_id", "file_id"],
        sqlite_where=where,
        postgresql_where=where,
    )


def create_search_texts() -> None:
    op.create_table(
        "search_texts",
        sa.Column("file_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text().with_variant(postgresql.TSVECTOR(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("file_id", name="pk_search_texts"),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE INDEX search_words ON search_texts USING gin (document)")
    else:
        op.execute(
            "CREATE VIRTUAL TABLE search_words USING fts5(experiment_id, document, content='search_texts', "
            "content_rowid='file_id', tokenize='unicode61 remove_diacritics 0')"
        )


def create_search_counts() -> None:
    op.create_table(
        "search_counts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("experiment_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_counts"),
        sa.UniqueConstraint("experiment_id", "kind", "name", name="uq_search_counts_experiment_id_kind_name"),
    )
    op.create_table(
        "search_facets",
        sa.Column("experiment_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", TEXT, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("experiment_id", "key_id", "text", name="pk_search_facets"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "search_stats",
        sa.Column("key_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("experiment_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("dimension", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("terms", sa.BigInteger(), nullable=False),
        sa.Column("other", sa.BigInteger(), nullable=False),
        sa.Column("shift", sa.Double(), nullable=True),
        sa.Column("total", sa.Double(), nullable=True),
        sa.Column("squares", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", "experiment_id", "dimension", name="pk_search_stats"),
        sqlite_with_rowid=False,
    )
