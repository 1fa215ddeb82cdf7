"""Addresses and forms that no page of ours has: each is answered with a sentence, and with the headers of all."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from pathlib import Path
from typing import Any

import httpx2
import pytest

from beamkeeper.config import Settings
from beamkeeper.domain.users import Role
from beamkeeper.portal.app import build_app
from beamkeeper.testing.portal import PASSWORD, Site

DIGITS = "9" * 5000
"""More than Python reads as a number."""


@pytest.fixture
def raw(site: Site) -> Iterator[httpx2.Client]:
    site.person("odette", role=Role.ADMINISTRATOR)
    with httpx2.Client(base_url=site.url, trust_env=False) as opened:
        assert opened.post("/login", data={"username": "odette", "password": PASSWORD}).status_code == 303
        yield opened


@pytest.mark.parametrize(
    "path", ["/experiments?order=x", f"/experiments?limit={DIGITS}", f"/jobs?limit={DIGITS}", "/experiments?limit=²"]
)
def test_an_address_that_is_wrong_is_told_in_a_sentence(raw: httpx2.Client, path: str) -> None:
    answer = raw.get(path)
    assert answer.status_code == 422
    assert "Something went wrong" not in answer.text


def test_numbers_and_words_that_mean_nothing_are_passed_over_or_told(raw: httpx2.Client, site: Site) -> None:
    of = f"/experiments/{site.experiment('odd-addresses').uid}"
    token = raw.get("/experiments").text.partition('name="form_token" value="')[2].partition('"')[0]
    assert raw.get(f"/administration/audit?after={DIGITS}").status_code == 200
    nowhere = "00000000-0000-0000-0000-000000000000"
    assert raw.get(f"{of}/daqs/{nowhere}?state=x").status_code == 422
    for days in ("²", DIGITS):
        key = raw.post("/keys", data={"form_token": token, "name": "odd", "scopes": "files:read", "days": days})
        assert key.status_code == 422


def test_a_page_of_many_directories_has_some_of_them_and_leads_to_the_others(raw: httpx2.Client, site: Site) -> None:
    of = site.experiment("many-directories")
    names = [f"scan_{number:03}" for number in range(120)]
    source = site.source("many-directories")
    for name in names:
        (source / name).mkdir()
        (source / name / "a.dat").write_bytes(b"1")
    site.upload(of, source)
    for path, is_below, place in (
        (f"/experiments/{of.uid}/ledger", "", "after"),
        (f"/experiments/{of.uid}/files?dir=data", "/", "below"),
    ):
        found: list[str] = []
        page = raw.get(path).text
        assert len(set(re.findall(rf"scan_[0-9]+(?={is_below}<)", page))) == 50
        while page:
            found += dict.fromkeys(re.findall(rf"scan_[0-9]+(?={is_below}<)", page))
            ways = [unescape(way) for way in re.findall(r'<a rel="next" href="([^"]+)"', page)]
            page = next((raw.get(way).text for way in ways if f"{place}=" in way), "")
        assert found == names
        assert raw.get(path, params={place: "no cursor"} | dict(httpx2.URL(path).params)).status_code == 422
    json_, csv_ = (f"/experiments/{of.uid}/directories.{form}?dir=data" for form in ("json", "csv"))
    some = raw.get(json_, params={"dir": "data", "limit": 70}).json()
    rest = raw.get(json_, params={"dir": "data", "after": some["next"]}).json()
    assert [one["name"] for one in (*some["items"], *rest["items"])] == [f"{name}/" for name in names]
    assert rest["next"] is None
    assert len(raw.get(csv_).text.splitlines()) == 121


@pytest.mark.parametrize("wanted", ["//[", "http://[", "/\\[", "//\t["])
def test_where_a_login_leads_may_be_no_address_at_all(raw: httpx2.Client, wanted: str) -> None:
    done = raw.get("/login", params={"next": wanted})
    assert (done.status_code, done.headers["location"]) == (303, "/")


def ask_alone(settings: Settings, method: str, path: str, **given: Any) -> httpx2.Response:
    """Ask a portal that has nothing but its settings."""

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(build_app(settings, asyncio.Event()), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://portal") as client:
            return await client.request(method, path, **given)

    with ThreadPoolExecutor(1) as pool:  # a browser may have a loop of its own in this thread
        return pool.submit(lambda: asyncio.run(ask())).result()


def test_a_page_that_fails_has_the_headers_of_all(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.service_key_file.write_bytes(b"\xff is no key")
    answer = ask_alone(settings, "GET", "/kiosk")
    assert answer.status_code == 500
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"


def test_a_key_of_nothing_makes_no_screen_a_kiosk(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.service_key_file.write_bytes(b"")
    answer = ask_alone(settings, "POST", "/kiosk", data={"key": ""})
    assert (answer.status_code, "holds no service key" in answer.text) == (503, True)
    assert "set-cookie" not in answer.headers
