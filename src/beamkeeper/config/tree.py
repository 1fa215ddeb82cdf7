"""The tree of settings: every one with its default and what it does."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from beamkeeper.config.people import People
from beamkeeper.config.portal import Portal
from beamkeeper.config.processing import Processing
from beamkeeper.config.values import (
    LONGEST_HOURS,
    WILDCARDS,
    AbsolutePath,
    Address,
    Cycle,
    DataDir,
    Endpoint,
    HourlyLimit,
    Layout,
    Number,
    OptionalFile,
    Section,
    ServiceSection,
    SiteUrl,
    Tables,
    Timezone,
    Whole,
    split_address,
)
from beamkeeper.config.wiping import Wipe
from beamkeeper.domain.experiments import DEFAULT_LAYOUT
from beamkeeper.domain.files import AreaNames, Verify
from beamkeeper.domain.names import StationName, Title
from beamkeeper.domain.status import PORTAL, SERVED, Service


def default_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where a user's own beamline keeps its data when nothing is set (XDG base directories)."""
    base = environ.get("XDG_DATA_HOME", "")
    if os.path.isabs(base):  # the XDG specification: a relative path is to be ignored
        return Path(base) / "beamkeeper"
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / ".local" / "share" / "beamkeeper"


class Station(Section):
    """The beamline that this deployment serves; used when it is first started."""

    name: StationName = Field(default="station", description="Its short name.")
    title: Title = Field(default="", description="Its full name, for people.")
    timezone: Timezone = Field(default="UTC", description="IANA time zone, for display and for layout fields.")
    layout: Layout = Field(
        default=DEFAULT_LAYOUT,
        description="Where an experiment lies below its storage area: fields "
        "{cycle} {year} {month} {proposal} {pi} {type} {station} {experiment}.",
    )
    cycle: Cycle = Field(default="", description="The facility's run period, such as 2026-1; the year where empty.")
    offline_grace_hours: Number = Field(
        default=24.0,
        gt=0,
        le=LONGEST_HOURS,
        description="So long after it last heard from the site the station still lets people in who were logged in.",
    )
    offline_login: bool = Field(
        default=False,
        description="Whether who has logged in here may do so while the site is away: a verifier is kept here.",
    )
    agent: Annotated[str, StringConstraints(min_length=1, max_length=255)] = Field(
        default_factory=socket.gethostname, description="The name under which this process's disks are known."
    )


class Storage(ServiceSection):
    """The storage service: users, experiments, and the place where files lie."""

    listen: Address = Field(default="127.0.0.1:22236", description="HOST:PORT to listen on; port 0 takes a free one.")
    area_path: AbsolutePath = Field(
        default=Path("storage"), description="Directory of the first storage area; storage in data_dir unless set."
    )
    session_hours: Number = Field(default=12.0, gt=0, le=24 * 366, description="How long a login lasts, in hours.")


class Catalog(ServiceSection):
    """The catalog service: which files there are."""

    listen: Address = Field(default="127.0.0.1:22237", description="HOST:PORT to listen on; port 0 takes a free one.")
    site_url: SiteUrl = Field(
        default="", description="Address of the site's catalogue, which is to follow this one; none where empty."
    )


class Acquisition(ServiceSection):
    """The acquisition service: DAQs and uploads."""

    listen: Address = Field(default="127.0.0.1:22238", description="HOST:PORT to listen on; port 0 takes a free one.")
    spool: AbsolutePath = Field(
        default=Path("spool"), description="Directory for files that `dm put` sends; spool in data_dir unless set."
    )
    put_hours: Number = Field(
        default=24.0,
        gt=0,
        le=LONGEST_HOURS,
        description="A put that was begun, and whose client has sent nothing for so many hours, is given up.",
    )
    roots: tuple[AbsolutePath, ...] = Field(
        default=(), description="Members may start DAQs and uploads below these directories; station managers anywhere."
    )
    processors: tuple[str, ...] = Field(
        default=("metadata", "catalogue"), description="The chain of plugins that every stored file goes through."
    )
    quiet_s: Number = Field(
        default=2.0, ge=0, le=3600, description="A file that rested this many seconds may count as finished."
    )
    scan_interval_s: Number = Field(default=30.0, gt=0, le=86400, description="Seconds between full scans of a DAQ.")
    canary_s: Number = Field(
        default=60.0,
        ge=0,
        le=86400,
        description="Seconds between the hidden files that prove a watch alive; 0 for none, and then scans come often.",
    )
    poll: Literal["auto", "always"] = Field(
        default="auto",
        description="always: scan directories often in place of waiting for the kernel's word, as on networks.",
    )
    on_problem: tuple[str, ...] = Field(
        default=(),
        description='A command that is told of problems, such as ["/usr/local/bin/tell-us"]; run without a shell.',
    )
    verify: Verify = Field(
        default=Verify.READ_BACK,
        description="read-back: copies are read back before they get their names; deferred: they are stored "
        "unverified, and read later; none: they are read by scrubs only. Each DAQ and upload may say otherwise.",
    )
    also: AreaNames = Field(
        default=(),
        description="Storage areas that are to have a copy of every file too, unless a DAQ or upload says otherwise.",
    )
    verify_bytes_s: Whole = Field(
        default=200_000_000,
        ge=1,
        le=10**12,
        description="How many bytes a second are read of what was stored unverified.",
    )
    io_class: Literal["idle", "best-effort", "none"] = Field(
        default="idle",
        description="The kernel's I/O class of threads that read from the source. idle: only when nobody else uses "
        "its disk, which some schedulers obey and which may starve; best-effort: after others; none: as anybody.",
    )
    back_off_at: Number = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="While a detector writes, copying slows down when writes to its disk take so many times as long "
        "as without us; 0 for never.",
    )
    limits: tuple[HourlyLimit, ...] = Field(
        default=(),
        description='Bytes a second that are read from the source at most, by the time of day at the station: ["08:00'
        '-18:00 50MB", "22:00-06:00 1GB"].',
    )
    threads: Whole = Field(default=2, ge=1, le=64, description="How many batches move at the same time.")
    stall_s: Number = Field(
        default=30.0,
        ge=1,
        le=3600,
        description="A transfer that showed no sign of life for so many seconds hangs: its storage area is paused.",
    )
    ahead_bytes: Whole = Field(
        default=1_000_000_000,
        ge=0,
        le=10**15,
        description="A file that is still written is staged while it grows, from so many bytes on; 0 for never.",
    )
    lease_s: Number = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="A process of the engine that was not heard of for so many seconds has lost its batches to others.",
    )
    batch_files: Whole = Field(default=1000, ge=1, le=1000, description="The most files of one batch.")
    batch_bytes: Whole = Field(default=1_000_000_000, ge=1, le=10**15, description="About the most bytes of one batch.")
    attempts: Whole = Field(
        default=8,
        ge=1,
        le=100,
        description="A file that fails so often by itself is put aside and listed with the reason; "
        "between two attempts are 2, 4, 8 ... and at most 60 seconds.",
    )


class Tls(Section):
    """How the services prove who they are, and whom they believe. Without a certificate they speak plain HTTP."""

    certificate_file: OptionalFile = Field(
        default="", description="Certificate of this host with its chain (PEM): every service here speaks TLS with it."
    )
    key_file: OptionalFile = Field(default="", description="The key of that certificate (PEM, without passphrase).")
    ca_file: OptionalFile = Field(
        default="",
        description="The authorities (PEM) that services here believe when they call others; the system's where empty.",
    )


class Log(Section):
    """What the services write about themselves."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is written."
    )
    format: Literal["text", "json"] = Field(default="text", description="One line of text, or of JSON, for each fact.")


class Settings(Section):
    """Every setting. What depends on another (paths in data_dir, URLs) is filled in when the tree is built."""

    data_dir: DataDir = Field(
        default_factory=default_data_dir, description="Directory of databases, logs and, unless set, of all else."
    )
    site: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        default="site", description="The facility's name, for people."
    )
    service_key_file: AbsolutePath = Field(
        default=Path("service.key"),
        description="File with the key under which the station's services act; service.key in data_dir unless set.",
    )
    station: Station = Field(default_factory=Station, description="The beamline that this deployment serves.")
    storage: Storage = Field(default_factory=Storage, description="The storage service.")
    catalog: Catalog = Field(default_factory=Catalog, description="The catalog service.")
    acquisition: Acquisition = Field(default_factory=Acquisition, description="The acquisition service.")
    processing: Processing = Field(default_factory=Processing, description="The processing service.")
    portal: Portal = Field(default_factory=Portal, description="Pages for browsers.")
    wipe: Wipe = Field(default_factory=Wipe, description="What has to be proven before a directory may be wiped.")
    tls: Tls = Field(default_factory=Tls, description="How the services prove who they are, and whom they believe.")
    people: People = Field(default_factory=People, description="Where a facility's people come from.")
    log: Log = Field(default_factory=Log, description="What the services write about themselves.")
    transfer: Tables = Field(
        default_factory=dict,
        description="A table of options for each transfer plugin, by name; "
        "or of any name, with `plugin` saying of which, for storage areas that name it as their transfer.",
    )
    processor: Tables = Field(default_factory=dict, description="A table of options for each file processor, by name.")

    executors: Tables = Field(
        default_factory=dict,
        description="A table for each executor that runs stages elsewhere: its `plugin` (parsl unless set), commands "
        "at once (`slots`), how data get there (`staging`, `_root`, `_transfer`), and the plugin's options.",
    )

    facility: Tables = Field(
        default_factory=dict,
        description="A table of options for each plugin that knows the facility's people or checks their passwords, "
        "by name: those of one name share it.",
    )
    proposals: Tables = Field(default_factory=dict, description="A table of options for each source of proposals.")
    oidc: Tables = Field(
        default_factory=dict,
        description="A table for each OpenID Connect provider that people may log in by, under a name of one's own.",
    )

    def section(self, service: str) -> ServiceSection:
        """Return the settings of a service."""
        sections: dict[str, ServiceSection] = {
            Service.STORAGE: self.storage,
            Service.CATALOG: self.catalog,
            Service.ACQUISITION: self.acquisition,
            Service.PROCESSING: self.processing,
        }
        return sections[service]

    def endpoint(self, name: str) -> Endpoint:
        """Return the settings of what listens: a service, or the portal."""
        return self.portal if name == PORTAL else self.section(name)

    def database_url(self, service: str) -> str:
        """Return the URL of a service's database, with its password and its driver."""
        url = self.section(service).database.get_secret_value()
        return url.replace("postgresql://", "postgresql+psycopg://", 1) if url.startswith("postgresql://") else url

    def url(self, service: str) -> str:
        """Return the address that others reach a service at."""
        return self.endpoint(service).url

    def listen(self, service: str) -> tuple[str, int]:
        """Return host and port that a service listens on."""
        return split_address(self.endpoint(service).listen)

    def certificate(self, service: str) -> tuple[str, str]:
        """Return the files with a service's certificate and its key; empty where it speaks plain HTTP."""
        own = self.endpoint(service)
        given = own if own.certificate_file or own.key_file else self.tls
        return given.certificate_file, given.key_file

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        data_dir = values["data_dir"] if "data_dir" in values else default_data_dir()
        if not isinstance(data_dir, (str, Path)):
            return values
        base = Path(data_dir)
        filled = {"service_key_file": base / "service.key", **values, "data_dir": base}
        for service in SERVED:
            section = filled.get(service, {})
            if isinstance(section, BaseModel):
                section = section.model_dump(exclude_unset=True)
            if isinstance(section, dict):
                has_tls = _has_certificate(section) or _has_certificate(filled.get("tls"))
                filled[str(service)] = {**_derived(service, section, base, has_tls=has_tls), **section}
        return filled

    @model_validator(mode="after")
    def _certificates_whole(self) -> Self:
        sections: dict[str, Tls | Endpoint] = {"tls": self.tls, **{str(s): self.endpoint(s) for s in SERVED}}
        for name, section in sections.items():
            if bool(section.certificate_file) is not bool(section.key_file):
                given, other = ("certificate_file", "key_file")[:: 1 if section.certificate_file else -1]
                raise PydanticCustomError(
                    "half_certificate",
                    "{key} is set, and {other} is not: set both or none",
                    {"key": f"{name}.{given}", "other": f"{name}.{other}"},
                )
        return self

    @model_validator(mode="after")
    def _listen_apart(self) -> Self:
        seen: dict[tuple[str, int], str] = {}
        for service in SERVED:
            address = self.listen(service)
            if address in seen and address[1] != 0:
                raise PydanticCustomError(
                    "same_address",
                    "{key} and {other} are both {address}: give each service a port of its own",
                    {
                        "key": f"{service}.listen",
                        "other": f"{seen[address]}.listen",
                        "address": self.endpoint(service).listen,
                    },
                )
            seen[address] = service
        return self


def _has_certificate(section: Any) -> bool:
    value = section.get("certificate_file") if isinstance(section, Mapping) else None
    return bool(value or (isinstance(section, Tls) and section.certificate_file))


def _derived(service: str, section: Mapping[str, Any], base: Path, *, has_tls: bool) -> dict[str, Any]:
    """Return what a service's settings are where they are not set, as far as it depends on others."""
    models: dict[str, type[Endpoint]] = {
        Service.STORAGE: Storage,
        Service.CATALOG: Catalog,
        Service.ACQUISITION: Acquisition,
        Service.PROCESSING: Processing,
        PORTAL: Portal,
    }
    found: dict[str, Any] = {} if service == PORTAL else {"database": f"sqlite:///{base / service}.db"}
    try:
        host, port = split_address(str(section.get("listen", models[service].model_fields["listen"].default)))
    except ValueError:
        pass  # the setting's own validation refuses it, with its place
    else:
        name = socket.gethostname() if host in WILDCARDS else f"[{host}]" if ":" in host else host
        found["url"] = f"{'https' if has_tls else 'http'}://{name}:{port}"
    if service is Service.STORAGE:
        found["area_path"] = base / "storage"
    if service is Service.ACQUISITION:
        found["spool"] = base / "spool"
    if service is Service.PROCESSING:
        found["work"] = base / "jobs"
    return found
