"""What one can do: verbs with an explicit transaction and caller; no HTTP, no SQL."""
