"""Thin HTTP over core: routes of a few lines, and one table from errors to statuses."""
