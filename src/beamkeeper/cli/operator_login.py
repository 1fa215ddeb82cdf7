"""Logging in who runs the beamline of this machine, as `dm up` does."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click
from pydantic import BaseModel, SecretStr, TypeAdapter

from beamkeeper.cli import services
from beamkeeper.client.logins import DEFAULT, Logins, Profile
from beamkeeper.config import Loaded
from beamkeeper.domain.names import UtcTime
from beamkeeper.domain.status import Service

FIRST_SESSION = "first-session.json"


class OperatorSession(BaseModel):
    """The session that a beamline leaves in its data directory for who runs it."""

    url: str
    username: str
    token: SecretStr
    expires_at: UtcTime
    station: str


def log_in(loaded: Loaded) -> tuple[str, str]:
    """Log in who runs the beamline, unless they are; return as whom, and what to do where that cannot be.

    Whoever can read the data directory is its administrator anyway. The session comes from there: by the first
    start, or asked for when the last one has ended.
    """
    options = click.get_current_context().find_root().obj or {}
    name = options.get("profile") or os.environ.get("BEAMKEEPER_PROFILE") or DEFAULT
    logins, url = Logins(), loaded.settings.url(Service.STORAGE)
    kept = logins.get(name)
    is_logged_in = kept and kept.token and (kept.expires_at is None or kept.expires_at > datetime.now(UTC))
    if kept and is_logged_in and kept.url.rstrip("/") != url:
        return "", f'the profile "{name}" is logged in to {kept.url}: `dm --profile NAME up` logs in here as well'
    path = loaded.settings.data_dir / FIRST_SESSION
    is_first = path.exists()
    if kept and is_logged_in and not is_first:
        return kept.username, ""
    if not is_first:
        services.call("session", loaded)
    new = TypeAdapter(OperatorSession).validate_json(path.read_bytes())
    # A beamline that is new at an old address knows nothing of the experiment that was chosen there.
    before = (
        kept
        if kept and kept.url.rstrip("/") == url and not is_first
        else Profile(url=new.url, ca=loaded.settings.tls.ca_file)
    )
    told = {"username": new.username, "token": new.token, "expires_at": new.expires_at, "station": new.station}
    logins.put(name, before.model_copy(update=told))
    path.unlink()
    return new.username, ""
