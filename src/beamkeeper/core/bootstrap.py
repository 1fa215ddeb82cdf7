"""The first start of a storage service: a station, a storage area, an administrator, and a key for the engines."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import dataclass, field
from datetime import timedelta

from beamkeeper.config import Settings
from beamkeeper.core.sessions import begin_service_key, begin_session
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.errors import ConflictError, DestinationError, NotFoundError
from beamkeeper.domain.experiments import NewStation, Station
from beamkeeper.domain.storage import NewStorageArea
from beamkeeper.domain.users import Grant, NewSession, NewUser, Role

FIRST_AREA = "main"
FALLBACK_NAME = "admin"
_USERNAME = re.compile(r"[a-z_][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """What the first start made; the token and the key are shown this once."""

    station: Station
    operator: NewSession
    service_key: str = field(repr=False)


def is_fresh(tx: StorageTransaction) -> bool:
    """Whether nobody has ever used this database."""
    return not tx.users.is_any()


def bootstrap(tx: StorageTransaction, settings: Settings) -> Bootstrap:
    """Fill a fresh database from the settings; the administrator has no password, only this session."""
    if not is_fresh(tx):
        raise ConflictError("this storage database is in use already: it is filled at its first start only")
    path = settings.storage.area_path.absolute()
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(
            f"cannot make the storage area {path} ({error.strerror}): set storage.area_path to a directory that "
            f"this account may write"
        ) from error
    area = tx.storage.add(NewStorageArea(name=FIRST_AREA, station_url=path.as_uri(), path=str(path)))
    station = tx.experiments.add_station(
        NewStation(
            **settings.station.model_dump(include={"name", "title", "timezone", "layout", "cycle"}),
            storage_area_uid=area.uid,
            catalog_url=settings.url("catalog"),
            acquisition_url=settings.url("acquisition"),
            processing_url=settings.url("processing"),
        )
    )
    user = tx.users.add(NewUser(username=operator_name()))
    tx.users.grant(Grant(user_uid=user.uid, role=Role.ADMINISTRATOR))
    return Bootstrap(station, operator_session(tx, settings), begin_service_key(tx, station))


def operator_session(tx: StorageTransaction, settings: Settings) -> NewSession:
    """Begin a session for the administrator of this machine's account, who can read the database anyway."""
    user = tx.users.find(operator_name())
    if user is None or not user.is_enabled:
        raise NotFoundError(f'there is no account "{operator_name()}" for this machine\'s operator: use `dm login`')
    return begin_session(tx, user, expires_at=tx.now + timedelta(hours=settings.storage.session_hours))


def new_service_key(tx: StorageTransaction, settings: Settings) -> str:
    """Return another key for the services of the settings' station, where theirs is lost."""
    return begin_service_key(tx, tx.experiments.station_named(settings.station.name))


def operator_name() -> str:
    """Return the name of the account that this process runs under, if it can be a username."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name.lower()
    except KeyError:  # a container may run under a number without a name
        return FALLBACK_NAME
    return name if _USERNAME.fullmatch(name) else FALLBACK_NAME
