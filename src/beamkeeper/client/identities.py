"""Logging in by an identity provider, and which account somebody there is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import UUID

from beamkeeper.client.http import Http
from beamkeeper.domain.identities import (
    Identity,
    IdentityAnswer,
    IdentityLogin,
    LinkOutcome,
    LoginOutcome,
    NewIdentity,
    NewIdentityLogin,
    ProviderInfo,
)
from beamkeeper.domain.status import Service

if TYPE_CHECKING:
    from beamkeeper.client.api import Client


class Identities:
    """Providers, logins by them, and links."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def providers(self) -> Sequence[ProviderInfo]:
        """Return who vouches for people."""
        found: Sequence[ProviderInfo] = self._http().get("/api/v1/identity-providers", Sequence[ProviderInfo])
        return found

    def begin_login(self, provider: str, new: NewIdentityLogin) -> IdentityLogin:
        """Begin a login: the person goes to its URL."""
        begun: IdentityLogin = self._http().call("POST", f"{_path(provider)}/logins", IdentityLogin, body=new)
        return begun

    def end_login(self, provider: str, answer: IdentityAnswer) -> LoginOutcome:
        """Ask whether a login has ended; with a session this client goes on under it."""
        found: LoginOutcome = self._http().call(
            "POST", f"{_path(provider)}/sessions", LoginOutcome, body=_plain(answer)
        )
        if found.session is not None:
            self._client.credentials.token = found.session.token
        return found

    def begin_link(self, provider: str, new: NewIdentityLogin) -> IdentityLogin:
        """Begin to link one's own account."""
        begun: IdentityLogin = self._http().call("POST", f"{_path(provider)}/links", IdentityLogin, body=new)
        return begun

    def end_link(self, provider: str, answer: IdentityAnswer) -> LinkOutcome:
        """Ask whether one's own account is linked now."""
        found: LinkOutcome = self._http().call(
            "POST", f"{_path(provider)}/identities", LinkOutcome, body=_plain(answer)
        )
        return found

    def list(self, username: str) -> Sequence[Identity]:
        """Return who an account is at providers."""
        found: Sequence[Identity] = self._http().get(_of(username), Sequence[Identity])
        return found

    def link(self, username: str, new: NewIdentity) -> Identity:
        """Link an account, as an administrator."""
        linked: Identity = self._http().call("POST", _of(username), Identity, body=new)
        return linked

    def unlink(self, username: str, uid: UUID) -> None:
        """Unlink an account."""
        self._http().call("DELETE", f"{_of(username)}/{uid}")

    def _http(self) -> Http:
        return self._client.http(Service.STORAGE)


def _plain(answer: IdentityAnswer) -> dict[str, str | None]:
    """Return an answer with its secrets, which a dump masks."""
    hidden = {"secret": answer.secret, "code": answer.code, "state": answer.state}
    shown = {key: None if value is None else value.get_secret_value() for key, value in hidden.items()}
    return {"iss": answer.iss, **shown}


def _path(provider: str) -> str:
    return f"/api/v1/identity-providers/{quote(provider, safe='')}"


def _of(username: str) -> str:
    return f"/api/v1/users/{quote(username, safe='')}/identities"
