"""API keys: what instruments and scripts log in with."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from beamkeeper.domain.names import Input, Model, PlainName, Uid, Username, UtcTime
from beamkeeper.domain.users.people import Scope


class NewKey(Input):
    """An API key to be made; it may do what its owner may, of what its scopes name."""

    name: PlainName
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=len(Scope))]
    expires_at: UtcTime
    username: Username | None = Field(default=None, description="Whose; another's may be made by an administrator.")
    experiment_uid: Uid | None = Field(default=None, description="The only experiment that it may touch.")


class ApiKey(Model):
    """An API key, without what one logs in with."""

    uid: Uid
    name: str
    username: Username
    scopes: tuple[Scope, ...]
    experiment_uid: Uid | None = None
    experiment: str | None = Field(default=None, description="The name of that experiment.")
    created_at: UtcTime
    expires_at: UtcTime


class MadeKey(Model):
    """An API key as it is made; the token is shown once and kept by us only as a hash."""

    key: ApiKey
    token: str = Field(repr=False)
