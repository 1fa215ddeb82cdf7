"""The plugins that are shipped; they are found by the same entry points as anybody's."""
