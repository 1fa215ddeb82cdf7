"""The steps that bring a service's database from one schema to the next; each is frozen once it is released."""

HEAD = "0015"
"""The newest step, so that a start can look for it without loading Alembic."""
