"""People as identity providers know them: how they prove who they are, and which account that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field, SecretStr, StringConstraints

from beamkeeper.domain.names import Input, Model, Uid, Username, UtcTime
from beamkeeper.domain.users.people import NewSession

Subject = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""What a provider calls somebody, for ever; it means nothing at another one."""

ProviderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Secret = Annotated[SecretStr, Field(max_length=4096)]


class LoginKind(StrEnum):
    """How somebody gets from us to the provider and back."""

    CODE = "code"
    DEVICE = "device"

    @property
    def is_asked_again(self) -> bool:
        """Whether its end is asked for until it has come; a code comes once."""
        return self is LoginKind.DEVICE


class CreatedAs(StrEnum):
    """What an account may do that a first login makes."""

    NOBODY = "nobody"
    STATION_VIEWER = "station-viewer"


class ProviderInfo(Model):
    """A provider that one can log in by."""

    name: ProviderName
    title: str
    issuer: str


class NewIdentityLogin(Input):
    """A login by a provider that is to begin."""

    kind: LoginKind = LoginKind.DEVICE
    redirect_uri: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        default=None, description="Where the provider sends the browser back to: one of the settings; for codes only."
    )


class IdentityLogin(Model):
    """A login that has begun: where the person goes, and what its end is asked for with."""

    kind: LoginKind
    url: str
    user_code: str = Field(default="", description="What the person compares, or types there; of devices only.")
    secret: str = Field(repr=False, description="Of who began it, and nobody else: a portal keeps it in a cookie.")
    interval_s: float = Field(description="How long to wait between two questions whether it has ended.")
    expires_at: UtcTime


class IdentityAnswer(Input):
    """What the end of a login is asked for with; a code and a state are what the browser came back with."""

    secret: Secret
    code: Secret | None = None
    state: Secret | None = None
    iss: Annotated[str, StringConstraints(max_length=2000)] | None = None


class Identity(Model):
    """Somebody at a provider, who is an account here."""

    uid: Uid
    user_uid: Uid
    username: Username
    issuer: str
    subject: Subject
    linked_by: str = Field(description="Who said so; the issuer, where the first login made the account.")
    created_at: UtcTime


class NewIdentity(Input):
    """Somebody at a provider, who is to be an account here."""

    provider: ProviderName
    subject: Subject


class LoginOutcome(Model):
    """What became of a login by a provider: a session, or none yet."""

    session: NewSession | None = None
    interval_s: float = 0.0


class LinkOutcome(Model):
    """What became of a link: an identity, or none yet."""

    identity: Identity | None = None
    interval_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What a provider says when a login begins; the secrets are needed at its end, and shown to nobody."""

    url: str
    secrets: Mapping[str, str] = field(repr=False)
    lifetime_s: float
    interval_s: float = 0.0
    user_code: str = ""


@dataclass(frozen=True, slots=True)
class Proven:
    """Somebody who proved to a provider who they are, and what it says of them."""

    issuer: str
    subject: str
    username: str = ""
    full_name: str = ""
    email: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who has not proved it yet."""

    is_asked_too_often: bool = False


@dataclass(frozen=True, slots=True)
class OpenLogin:
    """A login that has begun, as we keep it."""

    id: int
    provider: str
    kind: LoginKind
    secrets: Mapping[str, str] = field(repr=False)
    user_uid: UUID | None
    interval_s: float
    next_at: datetime
    expires_at: datetime
