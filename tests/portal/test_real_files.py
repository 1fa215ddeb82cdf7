"""What the portal shows of files as facilities wrote them: a picture, a curve, or a sentence that says what to do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from beamkeeper.domain.files import File
from beamkeeper.domain.names import show_path
from beamkeeper.domain.users import Role
from beamkeeper.testing.portal import Look, Site

REAL = Path(os.environ.get("BEAMKEEPER_REAL_DATA", Path(__file__).parents[3] / "shared/data/real"))
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"there are no real files in {REAL}")
FILES = sorted(str(path.relative_to(REAL)) for path in REAL.rglob("*") if path.is_file()) if REAL.is_dir() else []
ELSEWHERE = "dls/Therm_6_2.nxs"
"""Its frames are in files beside it, which are not here."""


@pytest.fixture(scope="module")
def files(site: Site) -> Mapping[str, File]:
    made = site.experiment("real-files")
    site.person("julia", role=Role.PI, experiment=made)
    source = site.source("real-files")
    shutil.copytree(REAL, source, dirs_exist_ok=True)
    site.upload(made, source)
    return {show_path(one.relpath).partition("/")[2]: one for one in site.files(made)}


@pytest.fixture(scope="module")
def seen(site: Site, browser: Browser) -> Iterator[Look]:
    opened = Look(browser, site)
    opened.log_in("julia")
    yield opened
    opened.close()


@pytest.mark.parametrize("name", FILES)
def test_every_real_file_shows_something_that_makes_sense(files: Mapping[str, File], seen: Look, name: str) -> None:
    page = seen.page
    page.goto(f"/files/{files[name].uid}/preview")
    if name == ELSEWHERE:
        expect(page.locator(".notice.bad")).to_contain_text("its values are in /entry/data/data_000001 of this file")
        page.get_by_label("Dataset").select_option("/entry/data/omega")
    look = page.locator("figure.preview img, svg.curve")
    expect(look).to_be_visible()
    if look.evaluate("one => one.tagName") == "IMG":
        assert look.evaluate("one => one.decode().then(() => one.naturalWidth)") >= 5
    assert seen.faults == []


@pytest.mark.parametrize("name", ["aps/2iddf_0106.mda", "aps/Smither400.3_apr0300051.hdf"])
def test_files_that_are_no_hdf5_open_in_the_viewer_too(files: Mapping[str, File], seen: Look, name: str) -> None:
    page = seen.page
    page.goto(f"/files/{files[name].uid}/preview")
    page.get_by_role("link", name="Look into all of it").click()
    expect(page.get_by_role("treeitem", selected=True)).to_be_visible(timeout=10_000)
    expect(page.locator("#h5w-main-area figure").first).to_be_visible(timeout=10_000)
    assert seen.faults == []
