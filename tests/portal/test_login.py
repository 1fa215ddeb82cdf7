"""Logging in and out at the portal, and what it does with forms that nobody meant."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from starlette.requests import Request

from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.config.load import load
from beamkeeper.domain.users import Role, Session
from beamkeeper.portal import login
from beamkeeper.portal.app import ROOMS, Portal
from beamkeeper.portal.sessions import Sessions
from beamkeeper.portal.visits import Form, Visit
from beamkeeper.testing.portal import CANARY, PASSWORD, Look, Site

Open = Callable[..., Look]


@pytest.fixture(scope="module")
def ada(site: Site) -> str:
    return site.person("ada", role=Role.STATION_VIEWER)


@pytest.fixture
def raw(site: Site) -> Iterator[httpx2.Client]:
    """What speaks to the portal without a browser's manners."""
    with httpx2.Client(base_url=site.url, trust_env=False) as opened:
        yield opened


def logged_in(raw: httpx2.Client, username: str) -> str:
    """Log in without a browser; returns what forms carry."""
    done = raw.post("/login", data={"username": username, "password": PASSWORD})
    assert done.status_code == 303, done.text
    found = re.search(r'name="form_token" value="([^"]+)"', raw.get("/experiments").text)
    assert found is not None
    return found[1]


def test_one_comes_to_the_page_that_was_wanted_and_out_again(look: Open, ada: str) -> None:
    seen = look()
    page = seen.go("/experiments?text=coffee")
    assert "/login" in page.url
    page.get_by_label("Name", exact=True).fill(ada)
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/experiments?text=coffee")
    seen.check()
    [cookie] = [one for one in seen.context.cookies() if one["name"].startswith("beamkeeper-")]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto("/experiments")
    assert "/login" in page.url


def test_a_wrong_password_is_told_in_a_sentence(look: Open, ada: str) -> None:
    seen = look(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = seen.go("/login")
    page.get_by_label("Name", exact=True).fill(CANARY)
    page.get_by_label("Password").fill("no password of anybody")
    page.get_by_role("button", name="Log in", exact=True).click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_label("Name", exact=True).input_value() == CANARY
    seen.check()


def test_logging_out_ends_the_session_of_the_api(raw: httpx2.Client, site: Site, ada: str) -> None:
    before = {one.uid for one in site.client.sessions.list(ada)}
    token = logged_in(raw, ada)
    [begun] = [one for one in site.client.sessions.list(ada) if one.uid not in before]
    assert raw.post("/logout", data={"form_token": token}).status_code == 303
    assert begun.uid not in {one.uid for one in site.client.sessions.list(ada)}


def test_a_session_that_was_revoked_leads_to_the_login(raw: httpx2.Client, site: Site, ada: str) -> None:
    before = {one.uid for one in site.client.sessions.list(ada)}
    logged_in(raw, ada)
    [begun] = [one for one in site.client.sessions.list(ada) if one.uid not in before]
    site.client.sessions.revoke(begun.uid)
    answer = raw.get("/experiments")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fexperiments")
    assert raw.get("/login").status_code == 200


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://elsewhere.example"}])
def test_a_form_of_another_site_does_nothing(raw: httpx2.Client, ada: str, headers: dict[str, str]) -> None:
    token = logged_in(raw, ada)
    assert raw.post("/logout", data={"form_token": token}, headers=headers).status_code == 403
    assert raw.get("/experiments").status_code == 200
    with httpx2.Client(base_url=raw.base_url, trust_env=False) as stranger:
        done = stranger.post("/login", data={"username": ada, "password": PASSWORD}, headers=headers)
    assert done.status_code == 403


@pytest.mark.parametrize("is_foreign", [True, False])
def test_no_route_takes_a_form_that_was_not_meant(raw: httpx2.Client, ada: str, is_foreign: bool) -> None:
    logged_in(raw, ada)
    headers = {"Sec-Fetch-Site": "cross-site" if is_foreign else "same-origin"}
    paths = {
        re.sub(r"\{\w+(:\w+)?\}", str(uuid4()), one.path) for room in ROOMS for one in room if one.method == "POST"
    }
    assert len(paths) > 20
    assert {path: raw.post(path, headers=headers).status_code for path in paths} == dict.fromkeys(paths, 403)


def test_a_form_without_the_sessions_token_does_nothing(raw: httpx2.Client, ada: str) -> None:
    logged_in(raw, ada)
    assert raw.post("/logout", data={"form_token": "guessed"}).status_code == 403
    assert raw.post("/logout").status_code == 403
    assert raw.get("/experiments").status_code == 200


@pytest.mark.parametrize("wanted", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "x"])
def test_a_login_never_leads_to_another_site(raw: httpx2.Client, ada: str, wanted: str) -> None:
    done = raw.post("/login", data={"username": ada, "password": PASSWORD, "next": wanted})
    assert (done.status_code, done.headers["location"]) == (303, "/")


def test_a_session_of_a_shell_opens_the_portal_once_and_outlives_it(
    look: Open, raw: httpx2.Client, site: Site, ada: str
) -> None:
    logins = Logins(site.station.directory / "none.json")
    with Client(site.client.url, username=ada, password=PASSWORD, station="TEST", logins=logins) as shell:
        shell.sessions.login(ada, PASSWORD)
        way = shell.portal_way(shell.site().portal)
        seen = look()
        page = seen.go(way.removeprefix(site.url))
        page.get_by_role("button", name="Go in").click()
        page.wait_for_url("**/experiments")
        assert raw.get(way).status_code == 403
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        assert shell.sessions.whoami().user is not None
    answer = raw.post("/enter", headers={"Authorization": "Bearer guessed"})
    assert "address" not in answer.text


def test_who_fails_to_log_in_at_the_portal_keeps_nobody_else_waiting(raw: httpx2.Client) -> None:
    wrong = {"username": "mallory", "password": "wrong"}
    one, other = ({"X-Forwarded-For": f"192.0.2.{number}"} for number in (1, 2))  # as a web server before it says
    assert any(raw.post("/login", data=wrong, headers=one).status_code == 429 for _ in range(20))
    assert raw.post("/login", data=wrong, headers=other).status_code == 401


def test_a_browser_that_is_left_alone_is_logged_out(tmp_path: Path) -> None:
    at = [1000.0]
    session = Session(
        uid=uuid4(), user_uid=uuid4(), username="ada", created_at=datetime.now(UTC), expires_at=datetime.now(UTC)
    )

    def opened() -> Sessions:
        return Sessions(tmp_path / "sessions.json", idle_s=3600.0, clock=lambda: at[0])

    sessions = opened()
    name, other = sessions.begin(session, "token"), sessions.begin(session, "token")
    for _ in range(3):
        at[0] += 3000
        assert sessions.find(name), "it is used"
        sessions.find(other, is_use=False)
    assert sessions.find(other) is None, "a page that is drawn anew by itself is no use"
    assert opened().find(name), "also after a restart"
    at[0] += 3601
    assert sessions.find(name) is opened().find(name) is None


def test_every_answer_has_a_strict_policy(raw: httpx2.Client) -> None:
    for path in ("/login", "/nowhere", "/static/portal.css", "/experiments"):
        headers = raw.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_no_token_of_the_api_reaches_the_browser(raw: httpx2.Client, site: Site, ada: str) -> None:
    logged_in(raw, ada)
    kept = (site.station.data / "portal-sessions.json").read_text()
    assert (site.station.data / "portal-sessions.json").stat().st_mode & 0o077 == 0
    tokens = re.findall(r'"token": "([^"]+)"', kept)
    assert tokens
    shown = raw.get("/experiments").text + " ".join(raw.cookies.values())
    assert [token for token in tokens if token in shown] == []
    assert [value for value in raw.cookies.values() if value in kept] == []


def test_services_that_have_not_heard_of_a_new_session_are_told_to_wait(site: Site, ada: str, tmp_path: Path) -> None:
    settings = load(site.station.settings, {}, {"data_dir": str(tmp_path)}).settings
    portal = Portal(settings, asyncio.Event())
    request = Request({"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": []})
    done = login.enter(Visit(portal, request, form=Form([("username", ada), ("password", PASSWORD)])))
    assert done.status_code == 303
    kept = portal.sessions.find(done.headers["set-cookie"].partition("=")[2].partition(";")[0])
    assert kept is not None
    for station in ("", "TEST"):
        assert portal.clients.of(kept.token, station).credentials.mirror != ""
    portal.clients.forget(kept.token)
    assert portal.clients.of(kept.token).credentials.mirror == ""
