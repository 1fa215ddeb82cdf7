"""Stations, experiment types and experiments, and the template that lays out an experiment's directories."""

from __future__ import annotations

import string
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, StringConstraints

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.names import (
    ExperimentName,
    Input,
    Metadata,
    Model,
    PlainName,
    RelPath,
    StationName,
    Title,
    Uid,
    Username,
    UtcTime,
)
from beamkeeper.domain.terms import MAX_KEY
from beamkeeper.domain.users import Publicity, Role, Target

DEFAULT_LAYOUT = "{cycle}/{experiment}"
MAX_INDEX_KEYS = 64
LAYOUT_FIELDS = frozenset({"cycle", "year", "month", "proposal", "pi", "type", "station", "experiment"})


class Tree(StrEnum):
    """The trees of an experiment: ours, people's, and the system's own."""

    DATA = "data"
    ANALYSIS = "analysis"
    SYSTEM = "system"


def check_layout(template: str) -> str:
    """Return a layout template; refuse unknown fields and what climbs out of the storage area."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidError(f'layout "{template}" is no template ({error}): write it like {DEFAULT_LAYOUT}') from error
    for _, field, spec, conversion in parts:
        if field is not None and (field not in LAYOUT_FIELDS or spec or conversion):
            known = " ".join(sorted(f"{{{name}}}" for name in LAYOUT_FIELDS))
            raise InvalidError(f'layout "{template}" has an unknown field "{field}": use {known}')
    if "{experiment}" not in template:
        raise InvalidError(f'layout "{template}" has no {{experiment}}: two experiments would share a directory')
    RelPath(template)
    return template


class Station(Model):
    """One beamline's deployment in a site."""

    uid: Uid
    name: StationName
    title: Title = ""
    timezone: str = "UTC"
    layout: str = DEFAULT_LAYOUT
    cycle: str = ""
    storage_area_uid: Uid | None = Field(default=None, description="Where new experiments are stored.")
    catalog_url: str = ""
    acquisition_url: str = ""
    processing_url: str = ""
    created_at: UtcTime


class NewStation(Input):
    """A station to be made."""

    name: StationName
    title: Title = ""
    timezone: str = "UTC"
    layout: str = DEFAULT_LAYOUT
    cycle: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,32}$")] = ""
    storage_area_uid: Uid | None = None
    catalog_url: str = ""
    acquisition_url: str = ""
    processing_url: str = ""


class StationChange(Input):
    """What may be changed of a station; a new layout is for new experiments only."""

    title: Title | None = None
    timezone: str | None = None
    layout: str | None = None
    cycle: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,32}$")] | None = None
    storage_area_uid: Uid | None = None
    catalog_url: str | None = None
    acquisition_url: str | None = None
    processing_url: str | None = None


class JoinToken(Model):
    """A one-time token with which a station's services get their key; shown once."""

    station: StationName
    token: str = Field(repr=False)
    expires_at: UtcTime


class Join(Input):
    """A station's services ask for their key."""

    token: str = Field(repr=False)


class ServiceKey(Model):
    """The key under which a station's services act; shown once."""

    station: Station
    key: str = Field(repr=False)


IndexKey = Annotated[str, StringConstraints(pattern=r"^[^\x00.]+(\.[^\x00.]+)*$", max_length=MAX_KEY)]
"""A dotted metadata key, such as `sample.name`."""

IndexKeys = Annotated[tuple[IndexKey, ...], Field(max_length=MAX_INDEX_KEYS)]


class ExperimentType(Model):
    """A kind of experiment, such as a technique."""

    uid: Uid
    name: PlainName
    description: Title = ""
    index_keys: tuple[str, ...] | None = Field(
        default=None, description="The only metadata keys that are indexed of its experiments' files; None is all."
    )


class NewExperimentType(Input):
    """A kind of experiment to be made."""

    name: PlainName
    description: Title = ""
    index_keys: IndexKeys | None = Field(
        default=None,
        description="The only metadata keys that are indexed, such as `sample.name`; others are searched slowly.",
    )


class ExperimentTypeChange(Input):
    """What may be changed of a kind of experiment; what is left out stays."""

    description: Title = ""
    index_keys: IndexKeys | None = Field(
        default=None, description="The only metadata keys that are indexed from now on; null is all. Files follow soon."
    )


class Experiment(Model):
    """A named collection of files with people, roles and dates; lives on one station."""

    uid: Uid
    number: int = Field(description="Site-wide integer, for old clients.")
    name: ExperimentName
    station: StationName
    station_uid: Uid
    type: PlainName | None = None
    title: Title = ""
    description: Title = ""
    proposal: Title = ""
    esaf: Title = ""
    pi: Username | None = None
    cycle: str = ""
    starts_at: UtcTime | None = None
    ends_at: UtcTime | None = None
    publicity: Publicity = Publicity.PROPRIETARY
    embargo_until: UtcTime | None = None
    licence: Title = ""
    metadata: Metadata = Field(default_factory=dict)
    storage_area_uid: Uid
    directory: str = Field(description="Below the storage area.")
    created_at: UtcTime
    deleted_at: UtcTime | None = None

    def target(self, now: datetime) -> Target:
        """Return what rights on this experiment depend on."""
        return Target(
            station_uid=self.station_uid,
            experiment_uid=self.uid,
            publicity=self.publicity,
            is_embargoed=self.embargo_until is not None and now < self.embargo_until,
        )


class NewExperiment(Input):
    """An experiment to be made."""

    uid: Uid | None = Field(default=None, description="Asking again with the same uid gives the same one.")
    name: ExperimentName
    station: StationName
    type: PlainName | None = None
    title: Title = ""
    description: Title = ""
    proposal: Title = ""
    esaf: Title = ""
    pi: Username | None = None
    cycle: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,32}$")] | None = None
    starts_at: UtcTime | None = None
    ends_at: UtcTime | None = None
    publicity: Publicity = Publicity.PROPRIETARY
    embargo_until: UtcTime | None = None
    licence: Title = ""
    metadata: Metadata = Field(default_factory=dict)
    root_path: str | None = Field(default=None, description="Own directory in place of the station's layout.")
    storage_area_uid: Uid | None = None


class SentExperiment(Input):
    """An experiment that was made at a station while it was cut off from the site."""

    new: NewExperiment
    by: Username = Field(description="Who made it there.")


class UnsentExperiment(Model):
    """An experiment that was made at a station while it was cut off, and that its site does not have yet."""

    uid: Uid
    name: ExperimentName
    made_by: Username
    made_at: UtcTime
    message: Title = Field(default="", description="Why the site refused it last; empty where it waits.")
    tries: int = Field(default=0, description="How often the site refused it.")
    next_at: UtcTime = Field(description="When it is sent next, if the site can be reached then.")
    wanted: SentExperiment


class UnsentChange(Input):
    """What is to be another way when such an experiment is sent again, now; what is left out stays."""

    name: ExperimentName | None = None
    type: PlainName | None = None
    pi: Username | None = None
    proposal: Title | None = None
    esaf: Title | None = None
    starts_at: UtcTime | None = None
    ends_at: UtcTime | None = None
    root_path: str | None = None
    storage_area_uid: Uid | None = None


class ExperimentChange(Input):
    """What may be changed of an experiment; what is left out stays, a metadata value of null goes."""

    type: PlainName | None = None
    title: Title | None = None
    description: Title | None = None
    proposal: Title | None = None
    esaf: Title | None = None
    starts_at: UtcTime | None = None
    ends_at: UtcTime | None = None
    publicity: Publicity | None = None
    embargo_until: UtcTime | None = None
    licence: Title | None = None
    metadata: Metadata | None = None


class Member(Model):
    """Somebody's role in an experiment."""

    username: Username
    full_name: Title = ""
    role: Role


class MemberRole(Input):
    """The role that somebody gets in an experiment, in place of an earlier one."""

    role: Role


class ExperimentOrder(StrEnum):
    """In which order experiments are told."""

    NEWEST = "newest"
    OLDEST = "oldest"
    NAME = "name"
    NAME_DOWN = "name-down"


class ExperimentQuery(Input):
    """Which experiments are wanted; conditions are joined by AND."""

    station: StationName | None = None
    name: ExperimentName | None = None
    text: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        default=None, description="Part of the name, title, proposal or PI, in either case."
    )
    type: PlainName | None = None
    order: ExperimentOrder = ExperimentOrder.NEWEST
    with_deleted: bool = False
    after: str | None = Field(default=None, description="The `next` of the page before.")
    limit: int = Field(default=100, ge=1, le=1000)


class ExperimentPage(Model):
    """Some experiments, and the cursor that continues the list."""

    items: tuple[Experiment, ...]
    next: str | None = None


def layout_fields(new: NewExperiment, *, station: Station, now: datetime) -> Mapping[str, str]:
    """Return the values of a layout's fields, by the station's own clock and zone."""
    local = now.astimezone(ZoneInfo(station.timezone))
    return {
        "cycle": new.cycle or station.cycle or f"{local.year}",
        "year": f"{local.year:04d}",
        "month": f"{local.month:02d}",
        "proposal": new.proposal,
        "pi": new.pi or "",
        "type": new.type or "",
        "station": station.name,
        "experiment": new.name,
    }


def experiment_directory(new: NewExperiment, *, station: Station, now: datetime) -> str:
    """Return an experiment's directory below its storage area, from `root_path` or the station's layout."""
    if new.root_path is not None:
        return RelPath(new.root_path.strip("/")).decode()
    fields = layout_fields(new, station=station, now=now)
    used = {field for _, field, _, _ in string.Formatter().parse(station.layout) if field}
    if missing := sorted(name for name in used if not fields[name]):
        raise InvalidError(
            f'experiment "{new.name}" has no {missing[0]}, which layout "{station.layout}" needs: '
            f"give it, or a root path of its own"
        )
    safe = {name: value.replace("/", "_").replace("\0", "_") for name, value in fields.items()}
    return RelPath(station.layout.format_map(safe)).decode()
