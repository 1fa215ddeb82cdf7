"""The long-running loops; their state is only in the database."""
