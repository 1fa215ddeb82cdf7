"""The contact sheet: small pictures as they are made, many by one request, block after block as one scrolls."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import tifffile
from playwright.sync_api import expect

from beamkeeper.domain.acquisition import NewUpload, State
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.frames import NewFrame
from beamkeeper.domain.users import Role
from beamkeeper.portal.sheets import BLOCK
from beamkeeper.testing.portal import CANARY, PHONE, Look, Site
from beamkeeper.testing.sheets import catalogued, looked_at, service

Open = Callable[..., Look]
KEPT = re.compile("^data:image/png;base64,")
RAMP = np.arange(200 * 300, dtype=np.uint16).reshape(200, 300)
ODD = f"zz {CANARY.replace('/', '')}.tif"


@pytest.fixture(scope="module")
def sheet(site: Site) -> Experiment:
    """An experiment with two blocks of frames."""
    made = site.experiment("sheets")
    site.person("seth", role=Role.PI, experiment=made)
    site.person("lars")
    source = site.source("sheets")
    for number in range(BLOCK + 1):
        tifffile.imwrite(source / f"frame_{number:03}.tif", RAMP[:20, :30] + np.uint16(number))
    tifffile.imwrite(source / ODD, RAMP)
    site.upload(made, source)
    site.pictures_made()
    return made


def test_the_next_frames_come_as_one_scrolls_and_each_block_by_one_request(look: Open, sheet: Experiment) -> None:
    seen = look("seth", viewport=PHONE)
    page = seen.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/experiments/{sheet.uid}/sheet")
    pictures = page.locator("ul.sheet img")
    expect(pictures).to_have_count(BLOCK)
    expect(pictures.first).to_have_attribute("src", KEPT)
    expect(page.locator("ul.sheet li").first).to_contain_text("frame_000.tif max 5729, mean 2864.5")
    page.get_by_role("link", name="Next page").scroll_into_view_if_needed()
    expect(pictures).to_have_count(BLOCK + 2)
    expect(pictures.last).to_have_attribute("src", KEPT)
    assert pictures.last.evaluate("one => one.decode().then(() => [one.naturalWidth, one.naturalHeight])") == [100, 67]
    assert len([url for url in asked if "/thumbnails?" in url]) == 2
    assert not [url for url in asked if "frame.png" in url]
    seen.check()
    page.get_by_role("link", name="frame_007.tif").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("data/frame_007.tif")


def test_pictures_are_kept_by_the_browser_alone_and_are_for_those_who_may_read_the_files(
    look: Open, site: Site, sheet: Experiment
) -> None:
    one = next(site.files(sheet))
    where = f"/experiments/{sheet.uid}/thumbnails?versions={one.version_uid.hex}"
    answer = look("seth").page.request.get(where)
    assert list(answer.json()) == [one.version_uid.hex]
    assert answer.headers["cache-control"].startswith("private, max-age=")
    page = look("lars").page
    assert page.request.get(where).status == 404
    other = site.experiment("sheets-other")
    site.person("lars", role=Role.PI, experiment=other)
    assert page.request.get(where.replace(str(sheet.uid), str(other.uid))).json() == {}
    assert page.request.get(f"/experiments/{other.uid}/thumbnails?versions=x").status == 422


def test_a_new_version_gets_a_picture_of_its_own_and_what_has_none_is_drawn(look: Open, site: Site) -> None:
    made = site.experiment("sheets-again")
    site.person("seth", role=Role.PI, experiment=made)
    source = site.source("sheets-again")
    seen = look("seth")
    shown = []
    for number in (1, 2):
        tifffile.imwrite(source / "frame.tif", RAMP[:50, :50] if number == 1 else RAMP[:50, :50].T)
        site.upload(made, source)
        site.pictures_made()
        page = seen.go(f"/experiments/{made.uid}/sheet")
        expect(page.locator("ul.sheet img")).to_have_attribute("src", KEPT)
        shown.append(page.locator("ul.sheet img").get_attribute("src"))
    assert shown[0] != shown[1]
    tifffile.imwrite(source / "plain.tif", RAMP)
    new = NewUpload(experiment_uid=made.uid, path=str(source).lstrip("/"), processors=("catalogue",))
    assert site.client.uploads.wait(site.client.uploads.start(new).uid, timeout_s=60).state is State.DONE
    page = seen.go(f"/experiments/{made.uid}/sheet")
    drawn = page.locator("ul.sheet img").last
    expect(drawn).to_have_attribute("src", re.compile(r"frame\.png\?small=yes"))
    assert drawn.evaluate("one => one.decode().then(() => one.naturalWidth)") == 150


def test_pictures_come_as_they_are_made(look: Open, site: Site) -> None:
    made = site.experiment("sheets-coming")
    site.person("seth", role=Role.PI, experiment=made)
    with service(site) as by:
        files = catalogued(by, made, 3)
        seen = look("seth")
        asked: list[str] = []
        seen.page.on("request", lambda request: asked.append(request.url))
        page = seen.go(f"/experiments/{made.uid}/sheet")
        pictures, coming = page.locator("ul.sheet img[src]"), page.locator("ul.sheet li.coming")
        expect(coming).to_have_count(3)
        looked_at(by, made, files[:2])
        expect(pictures).to_have_count(2, timeout=20_000)
        expect(pictures.last).to_have_attribute("src", KEPT)
        expect(page.locator("ul.sheet li").nth(1)).to_contain_text("max 1")
        expect(coming).to_have_count(1)
        by.files.note_frames(made.uid, [NewFrame(version_uid=files[2].version_uid, error="it is cut")])
        expect(coming).to_have_count(0, timeout=20_000)
    expect(page.locator("ul.sheet img").last).to_have_attribute("src", re.compile(r"frame\.png"))
    assert len([url for url in asked if "frame.png" in url]) <= 1, "frames are drawn whose pictures were coming"


def test_however_far_one_scrolls_the_page_holds_few_pictures_and_brings_them_back(look: Open, site: Site) -> None:
    made = site.experiment("sheets-long")
    site.person("seth", role=Role.PI, experiment=made)
    with service(site) as by:
        looked_at(by, made, catalogued(by, made, 8 * BLOCK))
    seen = look("seth")
    page = seen.go(f"/experiments/{made.uid}/sheet")
    blocks, pictures = page.locator("ul.sheet"), page.locator("ul.sheet img")
    for number in range(2, 9):
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        expect(blocks).to_have_count(number)
    expect(page.locator("ul.sheet").last.locator("img").last).to_have_attribute("src", KEPT)
    expect(blocks.first.locator("img")).to_have_count(0)
    assert pictures.count() < 8 * BLOCK
    page.evaluate("scrollTo(0, 0)")
    expect(pictures.first).to_have_attribute("src", KEPT)
    expect(page.locator("ul.sheet li").first).to_contain_text("frame_00000.tif max 0")
    seen.check()
