"""Administration in the browser: accounts, roles, stations, types, areas, keys, the audit log; for whom it is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

import beamkeeper
from beamkeeper.client import Client
from beamkeeper.client.logins import Logins
from beamkeeper.domain.people import SyncKind
from beamkeeper.domain.users import Role
from beamkeeper.testing.portal import CANARY, PHONE, Look, Site

Open = Callable[..., Look]


@pytest.fixture(scope="module")
def admin(site: Site) -> str:
    return site.person("ann", role=Role.ADMINISTRATOR)


def test_an_account_is_made_gets_a_role_and_is_disabled(look: Open, site: Site, admin: str) -> None:
    seen = look(admin)
    page = seen.go("/administration/users")
    page.get_by_label("User name").fill("newcomer")
    page.get_by_label("Full name").fill(CANARY)
    page.get_by_label("Password").fill("short")
    page.get_by_role("button", name="Make an account").click()
    expect(page.get_by_role("alert")).to_contain_text("password")
    page.get_by_label("Password").fill("a long password")
    page.get_by_role("button", name="Make an account").click()
    expect(page.get_by_role("alert")).to_contain_text("newcomer has an account now")
    seen.check()
    page.get_by_role("link", name="newcomer").click()
    page.get_by_label("Role").select_option("station-viewer")
    page.get_by_label("Of the station").select_option("TEST")
    page.get_by_role("button", name="Give").click()
    expect(page.get_by_text("station-viewer of TEST")).to_be_visible()
    seen.check()
    assert look("newcomer").page.request.get("/station").status == 200
    page.get_by_label("Enabled").uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Enabled")).not_to_be_checked()
    assert not site.client.users.get("newcomer").is_enabled
    page.get_by_role("button", name="Take away station-viewer").click()
    expect(page.get_by_text("No role")).to_be_visible()


def test_a_station_is_made_and_enrolled_with_a_token_that_is_shown_once(look: Open, site: Site, admin: str) -> None:
    seen = look(admin, viewport=PHONE)
    page = seen.go("/administration/stations")
    page.get_by_label("Name", exact=True).fill("OTHER")
    page.get_by_label("Time zone").fill("America/Chicago")
    page.get_by_role("button", name="Make a station").click()
    page.get_by_role("button", name="Enrol OTHER").click()
    token = page.get_by_label("Shown this once").input_value()
    seen.check()
    page.goto("/administration/stations")
    assert token not in page.content()
    assert site.client.stations.join(token).station.name == "OTHER"


def test_an_area_is_proven_and_a_type_made(look: Open, site: Site, admin: str) -> None:
    seen = look(admin)
    page = seen.go("/administration/areas")
    page.get_by_role("button", name=re.compile("Check")).first.click()
    expect(page.get_by_role("alert")).to_have_class(re.compile("good"))
    seen.go("/administration/types")
    page.get_by_label("Name", exact=True).fill("SAXS")
    page.get_by_label("Description").fill(CANARY)
    page.get_by_role("button", name="Make a type").click()
    expect(page.get_by_role("cell", name=CANARY)).to_be_visible()
    seen.check()


def test_how_stations_stand_and_the_last_syncs_are_told(look: Open, site: Site, admin: str) -> None:
    site.person("ulla")
    refused = site.client.syncs.run(SyncKind.PROPOSALS)  # these settings name no source of them
    seen = look(admin)
    page = seen.go("/administration/stations")
    row = page.get_by_role("row").filter(has=page.get_by_role("cell", name="TEST", exact=True))
    expect(row.locator("td.time time").first).to_be_visible()
    told = page.request.get("/administration/stations.json").json()["items"]
    [own] = [one for one in told if one["name"] == "TEST"]
    assert (own["version"], isinstance(own["backlog"], int)) == (beamkeeper.__version__, True)
    page = seen.go("/administration/sync")
    expect(page.locator("tbody tr").first).to_contain_text(refused.message)
    assert page.request.get("/administration/sync.csv").status == 200
    page = seen.go("/administration/users?text=UlL")
    assert page.locator("tbody td:first-child").all_inner_texts() == ["ulla"]


def test_who_changed_what_is_told(look: Open, admin: str) -> None:
    page = look(admin).go("/administration/audit?username=ann")
    rows = page.request.get("/administration/audit.json?username=ann").json()["items"]
    assert {row["username"] for row in rows} <= {"ann"}
    expect(page.get_by_label("Of the service")).to_have_value("storage")


def test_a_key_of_ones_own_is_made_works_and_is_revoked(look: Open, site: Site) -> None:
    site.person("kay", experiment=site.experiment("kays-own"))
    seen = look("kay")
    page = seen.go("/keys")
    page.get_by_label("Name", exact=True).fill("detector")
    page.get_by_label("read").check()
    page.get_by_role("button", name="Make a key").click()
    token = page.get_by_label("Shown this once").input_value()
    seen.check()
    logins = Logins(site.station.directory / "none.json")
    with Client(site.client.url, token=token, station="TEST", logins=logins) as client:
        assert [one.name for one in client.experiments.list()] == ["kays-own"]
    page.get_by_role("button", name="Revoke detector").click()
    expect(page.get_by_text("You have no API key")).to_be_visible()


def test_whoever_is_no_administrator_is_offered_little_and_refused_the_rest(look: Open, site: Site) -> None:
    site.person("nora", experiment=site.experiment("noras-own"))
    page = look("nora").go("/administration")
    assert page.locator("main li a").all_inner_texts() == ["Your API keys"]
    token = page.locator("input[name=form_token]").first.input_value()
    for path in ("users", "users/ann", "areas", "audit"):
        assert page.request.get(f"/administration/{path}").status == 403, path
    forms: dict[str, dict[str, str | float | bool]] = {
        "users": {"username": "noras-friend", "password": "a long password"},
        "users/nora/grant": {"role": "administrator"},
        "stations": {"name": "NORAS"},
        "stations/token": {"name": "TEST"},
        "types": {"name": "NORAS"},
        "areas": {"name": "noras", "path": "/noras"},
    }
    for path, form in forms.items():
        answer = page.request.post(f"/administration/{path}", form={"form_token": token, **form})
        assert answer.status in (403, 422), path
    assert site.client.users.grants("nora")[0].role is Role.USER
    assert "noras-friend" not in {user.username for user in site.client.users.list()}
    assert [one.name for one in site.client.stations.list() if one.name == "NORAS"] == []
