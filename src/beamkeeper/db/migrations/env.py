"""How Alembic runs the steps: on the connection and for the service that `beamkeeper.db.upgrade` gives."""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Run the steps that are missing, all in the caller's transaction."""
    given = context.config.attributes
    context.configure(connection=given["connection"], transactional_ddl=True, service=given["service"])
    with context.begin_transaction():
        context.run_migrations()


run()
