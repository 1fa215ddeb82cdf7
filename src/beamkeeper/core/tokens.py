"""Random tokens: shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets


def new_token() -> str:
    """Return a token that nobody can guess: 256 random bits, with a name that secret scanners can look for."""
    return f"bk_{secrets.token_urlsafe(32)}"


def token_sha256(token: str) -> str:
    """Return what is kept of a token; it is random, so that a fast hash is enough."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
