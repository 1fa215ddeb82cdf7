"""What settings are made of: the kinds of values, each with what is wrong with one that does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, SecretStr, Strict, StringConstraints

from beamkeeper.domain.errors import InvalidError
from beamkeeper.domain.experiments import check_layout
from beamkeeper.domain.limits import Limit

DATABASE_SCHEMES = ("sqlite:///", "postgresql://", "postgresql+psycopg://")
WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - recognised, never bound by default
LARGEST_PORT = 65535
LONGEST_HOURS = 10 * 366 * 24.0


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT; an IPv6 host stands in brackets."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > LARGEST_PORT:
        raise ValueError("it should be HOST:PORT, such as 127.0.0.1:22236")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError("an IPv6 host stands in brackets, such as [::1]:22236")
    return host, int(port)


def _address(value: str) -> str:
    split_address(value)
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it should be http://HOST:PORT or https://HOST")
    return value.rstrip("/")


def _database(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not url.startswith(DATABASE_SCHEMES) or url == "sqlite:///":
        raise ValueError("it should be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE")
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f'there is no time zone "{value}" here: use an IANA name such as America/Chicago') from error
    return value


def _path(value: Path) -> Path:
    if not value.is_absolute() or "\0" in str(value):
        raise ValueError("it should be an absolute path")
    return value


def _optional_file(value: str) -> str:
    return str(_path(Path(value))) if value else ""


def _data_dir(value: Path) -> Path:
    if any(char in "?%" or "\ud800" <= char <= "\udfff" for char in str(value)):
        raise ValueError("it may have neither ? nor %, nor bytes that are not UTF-8: it is part of its databases' URLs")
    return value


def _layout(value: str) -> str:
    try:
        return check_layout(value)
    except InvalidError as error:
        raise ValueError(error.message) from error


def _limit(value: str) -> str:
    Limit.of(value)
    return value


Timezone = Annotated[str, AfterValidator(_timezone)]
Layout = Annotated[str, AfterValidator(_layout)]
HourlyLimit = Annotated[str, AfterValidator(_limit)]
Address = Annotated[str, AfterValidator(_address)]
OptionalAddress = Annotated[str, AfterValidator(lambda value: _address(value) if value else "")]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
SiteUrl = Annotated[str, AfterValidator(lambda value: _http_url(value) if value else "")]
DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]
AbsolutePath = Annotated[Path, AfterValidator(_path)]
OptionalFile = Annotated[str, AfterValidator(_optional_file)]
DataDir = Annotated[AbsolutePath, AfterValidator(_data_dir)]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Cycle = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,32}$")]
Tables = Mapping[str, Mapping[str, JsonValue]]


class Section(BaseModel):
    """A table of the file; a key that is not here is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Endpoint(Section):
    """What everything has that listens."""

    listen: Address = Field(description="HOST:PORT to listen on; port 0 takes a free one.")
    url: HttpUrl = Field(
        default="http://127.0.0.1", description="The address that others reach it at; http://<listen> unless set."
    )
    certificate_file: OptionalFile = Field(
        default="", description="Its own certificate with the chain, instead of tls.certificate_file."
    )
    key_file: OptionalFile = Field(default="", description="The key of its own certificate.")


class ServiceSection(Endpoint):
    """What every service has that keeps something."""

    database: DatabaseUrl = Field(
        default=SecretStr("sqlite:///"),
        description="Its database: sqlite:///PATH, or postgresql://USER:PASSWORD@HOST/DATABASE; "
        "an SQLite file in data_dir unless set.",
    )
