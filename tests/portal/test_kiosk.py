"""The kiosk: for a screen that was shown the station's key, and without any name."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import expect

from beamkeeper.testing.portal import Look, Site

Open = Callable[..., Look]


def test_a_screen_shows_the_station_without_names_once_it_was_given_the_key(look: Open, site: Site) -> None:
    made = site.experiment("secret-name", title="A secret title")
    source = site.source("secret-name")
    (source / "secret.dat").write_bytes(b"secret")
    site.upload(made, source)
    seen = look(viewport={"width": 1920, "height": 1080})
    page = seen.go("/kiosk")
    page.get_by_label("Station's key").fill("no key")
    page.get_by_role("button", name="Show it").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.request.get("/kiosk/part").status == 403
    page.get_by_label("Station's key").fill((site.station.data / "service.key").read_text())
    page.get_by_role("button", name="Show it").click()
    expect(page.get_by_text("safe to wipe")).to_be_visible()
    expect(page.get_by_text("files are too young")).to_be_visible(timeout=30_000)  # the page goes on by itself
    expect(page.get_by_text("NO", exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile("^free")).first).to_be_visible()
    seen.check()
    assert "secret" not in page.content()
    key = (site.station.data / "service.key").read_text().strip()
    assert [one for one in seen.context.cookies() if key in one["value"]] == []
    assert page.request.get("/experiments").url.endswith("/login?next=%2Fexperiments")
