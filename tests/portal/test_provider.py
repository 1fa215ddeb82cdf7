"""Logging in at the portal by an identity provider: a real one, in a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from starlette.requests import Request

from beamkeeper.config.load import load
from beamkeeper.domain.errors import TooManyAttemptsError
from beamkeeper.domain.identities import NewIdentity
from beamkeeper.domain.users import Role
from beamkeeper.portal import login, once
from beamkeeper.portal.app import Portal
from beamkeeper.portal.visits import Visit
from beamkeeper.testing.oidc import OidcServer
from beamkeeper.testing.portal import Look, Site

Open = Callable[..., Look]


@pytest.fixture(scope="module")
def provider(site: Site, oidc_server: OidcServer) -> Iterator[OidcServer]:
    """The provider that the settings of the site name; it has the programs of the one of all tests."""
    server = OidcServer(oidc_server.directory, site.provider_port)
    server.start(f"{site.url}/callback")
    yield server
    server.stop()


def go_there(page: Page, who: str) -> None:
    """Log in at the provider, as a person does."""
    page.get_by_role("button", name="Log in with the facility").click()
    page.locator("input[name=login]").fill(OidcServer.subject(who))
    page.locator("input[name=password]").fill("any")
    page.locator("button[type=submit]").click()


def test_one_comes_back_from_the_provider_to_the_page_that_was_wanted(
    look: Open, site: Site, provider: OidcServer
) -> None:
    site.person("olga", role=Role.STATION_VIEWER)
    site.client.identities.link("olga", NewIdentity(provider="facility", subject=OidcServer.subject("olga")))
    seen = look()
    page = seen.go("/experiments?text=coffee")
    go_there(page, "olga")
    page.get_by_role("button", name="Continue").click()  # what the provider asks: may they be told who this is?
    page.wait_for_url("**/experiments?text=coffee")
    expect(page.get_by_text("olga", exact=True)).to_be_visible()
    seen.check()
    [session] = site.client.sessions.list("olga")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    assert session.uid not in {one.uid for one in site.client.sessions.list("olga")}


def test_whoever_gives_up_or_is_nobody_here_is_told_so_in_a_sentence(
    look: Open, site: Site, provider: OidcServer
) -> None:
    seen = look()
    page = seen.go("/login")
    go_there(page, "stranger")
    page.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("alert")).to_contain_text("did not log you in")
    seen.check()
    page.get_by_role("button", name="Log in with the facility").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("alert")).to_contain_text("is nobody here yet")
    used = page.url
    other = look().page
    other.goto(used)
    expect(other.get_by_role("alert")).to_contain_text("not begun in this browser")


def test_whoever_begins_too_many_is_refused_before_the_storage_service_counts_them_for_all(
    site: Site, provider: OidcServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "MOST_OF_ONE", 2)
    portal = Portal(load(site.station.settings, {}, {"data_dir": str(tmp_path)}).settings, asyncio.Event())

    def begin(host: str) -> int:
        scope = {"type": "http", "method": "GET", "path": "/login/with/facility", "query_string": b"", "headers": []}
        request = Request({**scope, "client": (host, 1), "path_params": {"provider": "facility"}})
        return login.begin_elsewhere(Visit(portal, request)).status_code

    assert [begin("192.0.2.1"), begin("192.0.2.1")] == [303, 303]
    with pytest.raises(TooManyAttemptsError):
        begin("192.0.2.1")
    assert begin("192.0.2.2") == 303
