"""Stations: what one can do with them, and who may; and how their services get a key."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from zoneinfo import ZoneInfo

from beamkeeper.config import Settings
from beamkeeper.core.sessions import begin_service_key
from beamkeeper.core.tokens import new_token, token_sha256
from beamkeeper.db import StorageTransaction
from beamkeeper.domain.addresses import check_service_url
from beamkeeper.domain.errors import InvalidError, NotAuthenticatedError
from beamkeeper.domain.experiments import (
    Join,
    JoinToken,
    NewStation,
    ServiceKey,
    Station,
    StationChange,
    check_layout,
)
from beamkeeper.domain.status import PORTAL, SiteServices, StationServices
from beamkeeper.domain.users import SITE, Action, Caller, Target, may, require

JOIN_HOURS = 24
"""How long a one-time token may be used."""

_ANNOUNCED = frozenset({"catalog_url", "acquisition_url", "processing_url"})


def site(tx: StorageTransaction, settings: Settings) -> SiteServices:
    """Return where the services of the site and its stations are; anybody may know."""
    stations = [
        StationServices(
            name=station.name,
            catalog=station.catalog_url,
            acquisition=station.acquisition_url,
            processing=station.processing_url,
            timezone=station.timezone,
        )
        for station in tx.experiments.stations()
    ]
    portal = settings.url(PORTAL) if settings.portal.enabled else ""
    return SiteServices(site=settings.site, storage=settings.url("storage"), portal=portal, stations=stations)


def list_(tx: StorageTransaction, caller: Caller) -> Sequence[Station]:
    """Return the stations that the caller may read."""
    stations = tx.experiments.stations()
    return [station for station in stations if may(caller, Action.STATION_READ, Target(station_uid=station.uid))]


def show(tx: StorageTransaction, caller: Caller, name: str) -> Station:
    """Return a station."""
    return get(tx, caller, name, action=Action.STATION_READ)


def create(tx: StorageTransaction, caller: Caller, new: NewStation) -> Station:
    """Make a station; without a storage area it gets the only one, if there is just one."""
    require(caller, Action.SITE_ADMINISTER, SITE, "the site")
    _check(tx, new)
    areas = tx.storage.list()
    if new.storage_area_uid is None and len(areas) == 1:
        new = new.model_copy(update={"storage_area_uid": areas[0].uid})
    return tx.experiments.add_station(new)


def change(tx: StorageTransaction, caller: Caller, name: str, change: StationChange) -> Station:
    """Change a station; a new layout is for new experiments. Its services may say where they are."""
    is_announcement = change.model_fields_set <= _ANNOUNCED
    action = Action.STATION_ANNOUNCE if is_announcement else Action.STATION_MANAGE
    station = get(tx, caller, name, action=action)
    _check(tx, change)
    return tx.experiments.change_station(station.uid, change)


def make_join_token(tx: StorageTransaction, caller: Caller, name: str) -> JoinToken:
    """Return a one-time token with which a station's services get their key."""
    station = get(tx, caller, name, action=Action.STATION_MANAGE)
    token = new_token()
    expires_at = tx.now + timedelta(hours=JOIN_HOURS)
    tx.experiments.add_join_token(station.uid, token_sha256(token), expires_at=expires_at)
    return JoinToken(station=station.name, token=token, expires_at=expires_at)


def join(tx: StorageTransaction, join: Join) -> ServiceKey:
    """Give a station's services their key for a one-time token."""
    station = tx.experiments.use_join_token(token_sha256(join.token))
    if station is None:
        raise NotAuthenticatedError(
            f"this token was used, is older than {JOIN_HOURS} h, or was never given: "
            f"ask a manager of the station for another (`dm station token`)"
        )
    return ServiceKey(station=station, key=begin_service_key(tx, station))


def get(tx: StorageTransaction, caller: Caller, name: str, *, action: Action) -> Station:
    """Return a station at which the caller may do this."""
    station = tx.experiments.station_named(name)  # whose names are public: see site
    require(caller, action, Target(station_uid=station.uid), f'station "{name}"')
    return station


def _check(tx: StorageTransaction, station: NewStation | StationChange) -> None:
    if station.layout is not None:
        check_layout(station.layout)
    if station.timezone is not None:
        try:
            ZoneInfo(station.timezone)
        except (KeyError, ValueError, OSError) as error:
            raise InvalidError(
                f'there is no time zone "{station.timezone}": use an IANA name such as America/Chicago'
            ) from error
    for url in (station.catalog_url, station.acquisition_url, station.processing_url):
        if url:
            check_service_url(url)
    if station.storage_area_uid is not None:
        tx.storage.get(station.storage_area_uid)
