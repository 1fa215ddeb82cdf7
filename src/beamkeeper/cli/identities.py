"""Logging in by an identity provider, and `dm user link|unlink|identities`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import click
from pydantic import SecretStr

from beamkeeper.cli import common, output
from beamkeeper.client import Client
from beamkeeper.domain.errors import InvalidError, NotAuthenticatedError
from beamkeeper.domain.identities import Identity, IdentityAnswer, IdentityLogin, NewIdentity, NewIdentityLogin
from beamkeeper.domain.users import NewSession

COLUMNS = {
    "issuer": "issuer",
    "subject": "subject",
    "user": "username",
    "linked by": "linked_by",
    "since": "created_at",
    "uid": "uid",
}

T = TypeVar("T")


def log_in(client: Client, provider: str) -> NewSession:
    """Log in by a provider; the person proves who they are in a browser, of this or any machine."""
    name = _provider(client, provider)

    def end(answer: IdentityAnswer) -> tuple[NewSession | None, float]:
        found = client.identities.end_login(name, answer)
        return found.session, found.interval_s

    return _ended(client.identities.begin_login(name, NewIdentityLogin()), end)


@click.command()
@click.argument("provider", required=False)
@click.option("--user", "username", metavar="NAME", help="Another's account, as an administrator.")
@click.option("--subject", metavar="TEXT", help="What the provider calls that person.")
def link(provider: str | None, username: str | None, subject: str | None) -> None:
    """Let somebody at an identity provider be an account: you, once you have proved it there, be yours.

    An administrator says with --user and --subject who is whom.
    """
    if bool(username) is not bool(subject):
        raise InvalidError("--user and --subject go together: who there is who here")
    client = common.client()
    name = _provider(client, provider or "")
    if username and subject:
        linked = client.identities.link(username, common.build(NewIdentity, provider=name, subject=subject))
    else:
        linked = _linked(client, name)
    output.record(linked, COLUMNS)


@click.command()
@click.argument("uid", type=click.UUID)
@click.option("--user", "username", metavar="NAME", help="Another's account, as an administrator.")
def unlink(uid: UUID, username: str | None) -> None:
    """Let an identity (`dm user identities`) be an account no more; sessions go on until they end."""
    client = common.client()
    name = username or _own_name(client)
    client.identities.unlink(name, uid)
    output.say(f'{uid} is no longer "{name}".')


@click.command("identities")
@click.argument("username", required=False)
def list_(username: str | None) -> None:
    """Show who an account is at identity providers: one's own, or as administrator another's."""
    client = common.client()
    output.rows(client.identities.list(username or _own_name(client)), COLUMNS)


def _linked(client: Client, name: str) -> Identity:
    def end(answer: IdentityAnswer) -> tuple[Identity | None, float]:
        found = client.identities.end_link(name, answer)
        return found.identity, found.interval_s

    return _ended(client.identities.begin_link(name, NewIdentityLogin()), end)


def _ended(begun: IdentityLogin, end: Callable[[IdentityAnswer], tuple[T | None, float]]) -> T:
    """Send the person to the provider, and ask until that has let them in."""
    output.note(f"Go to  {begun.url}")
    if begun.user_code:
        output.note(f"Code   {begun.user_code}")
    answer, pause = IdentityAnswer(secret=SecretStr(begun.secret)), begun.interval_s
    while datetime.now(UTC) < begun.expires_at:
        time.sleep(pause)
        found, pause = end(answer)
        if found is not None:
            return found
    raise NotAuthenticatedError("nobody logged in at the provider in time: begin again")


def _provider(client: Client, name: str) -> str:
    """Return which provider is meant: where there is one, it need not be named."""
    known = [provider.name for provider in client.identities.providers()]
    if name in known:
        return name
    if not name and len(known) == 1:
        return known[0]
    there = ", ".join(known) or "none"
    raise InvalidError(f"say by which identity provider: there are {there}")


def _own_name(client: Client) -> str:
    user = client.sessions.whoami().user
    if user is None:
        raise InvalidError("the services of a station are nobody's account: name one")
    return user.username
