"""Tokens of logins at a station that is cut off: what they say is in them, under a seal of the station's services."""

from __future__ import annotations

import base64
import hashlib
import hmac

from pydantic import ValidationError

from beamkeeper.domain.errors import NotAuthenticatedError
from beamkeeper.domain.users import OFFLINE_PREFIX, OfflineSession


def key_of(service_key: str) -> bytes:
    """Return what seals tokens, from the key under which a station's services act; it tells nothing of that key."""
    return hashlib.blake2b(service_key.encode(), person=b"offline login").digest()


def sealed(login: OfflineSession, key: bytes) -> str:
    """Return the token of a login."""
    body = base64.urlsafe_b64encode(login.model_dump_json().encode()).decode("ascii").rstrip("=")
    return f"{OFFLINE_PREFIX}{body}.{_seal(body, key)}"


def opened(token: str, key: bytes | None) -> OfflineSession:
    """Return the login that a token is of; NotAuthenticatedError where another, or nobody, sealed it."""
    body, _, seal = token.removeprefix(OFFLINE_PREFIX).partition(".")
    if key is None or not hmac.compare_digest(seal.encode(), _seal(body, key).encode()):
        raise NotAuthenticatedError(
            "this login is of a station that was cut off, and counts at its services alone: log in with `dm login`"
        )
    try:
        return OfflineSession.model_validate_json(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, ValidationError) as error:
        raise NotAuthenticatedError("this is no token of a login: log in again with `dm login`") from error


def _seal(body: str, key: bytes) -> str:
    return hmac.new(key, body.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
