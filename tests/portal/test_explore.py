"""The viewer of arrays in the browser: what it shows of whole, compressed, linked, hostile and broken files."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlencode

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from playwright.sync_api import Locator, Page, expect

from beamkeeper.domain.errors import UnavailableError
from beamkeeper.domain.files import File
from beamkeeper.domain.names import show_path
from beamkeeper.domain.users import Role
from beamkeeper.portal.grove import room
from beamkeeper.testing.portal import CANARY, PHONE, Look, Site

Open = Callable[..., Look]
FRAMES = np.arange(3 * 40 * 50, dtype=np.uint16).reshape(3, 40, 50)
NAME = CANARY.replace("/", "")
"""HDF5 has no slash in names."""


@pytest.fixture(scope="module")
def files(site: Site) -> Mapping[str, File]:
    made = site.experiment("explored")
    site.person("hana", role=Role.PI, experiment=made)
    site.person("ivan")
    source = site.source("explored")
    with h5py.File(source / "inner.h5", "w") as file:
        file.create_dataset("frames", data=FRAMES, chunks=(1, 40, 50), **hdf5plugin.Bitshuffle())
    with h5py.File(source / "scan.h5", "w") as file:
        entry = file.create_group("entry")
        entry.attrs.update({"NX_class": "NXentry", NAME: CANARY})
        entry.create_dataset("frames", data=FRAMES, chunks=(1, 40, 50), **hdf5plugin.Bitshuffle())
        entry["frames"].attrs.update({"units": "counts", "offsets": [1.5, 2.5], "is_good": True})
        entry["curve"] = np.linspace(0.0, 1.0, 20)
        entry[NAME] = np.array([CANARY.encode(), b"text"])
        entry["title"] = CANARY
        entry["complex"] = np.array([1 + 2j, 3 - 4j])
        entry["table"] = np.array([(1, 2.5, b"ab")], dtype=[("n", "i4"), ("x", "f8"), ("s", "S4")])
        entry["wide"] = np.array([2**60, 1], dtype=np.int64)
        entry["linked"] = h5py.ExternalLink("inner.h5", "/frames")
        entry["soft"] = h5py.SoftLink("/entry/frames")
        entry["lost"] = h5py.ExternalLink("/etc/passwd", "/x")
        entry["nowhere"] = h5py.SoftLink("/not/there")
        entry.create_dataset("huge", shape=(20000, 20000), dtype="u4", chunks=(100, 100))
        layout = h5py.VirtualLayout((3, 40, 50), "u2")
        layout[:] = h5py.VirtualSource("inner.h5", "frames", (3, 40, 50))
        entry.create_virtual_dataset("virtual", layout)
    (source / "broken.h5").write_bytes((source / "scan.h5").read_bytes()[:3000])
    site.upload(made, source)
    return {show_path(file.relpath).rpartition("/")[2]: file for file in site.files(made)}


def choose(page: Page, name: str) -> Locator:
    """Choose a name in the tree, and return where the viewer shows what it is."""
    page.get_by_role("treeitem", name=name, exact=True).click()
    expect(page.get_by_role("treeitem", name=name, exact=True, selected=True)).to_be_visible()
    return page.locator("#h5w-main-area")


def explore(seen: Look, file: File, name: str) -> Page:
    seen.page.goto(f"/files/{file.uid}/explore?{urlencode({'name': name})}")
    expect(seen.page.get_by_role("treeitem", name=name.rpartition("/")[2], exact=True)).to_be_visible()
    return seen.page


def test_the_page_of_a_file_leads_to_the_viewer_which_reads_frame_by_frame(
    look: Open, files: Mapping[str, File]
) -> None:
    seen = look("hana")
    page = seen.go(f"/files/{files['inner.h5'].uid}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    expect(page.get_by_role("img", name="Frame 0 of /frames")).to_be_visible()
    assert not [url for url in asked if "viewer" in url]
    page.get_by_role("link", name="Look into all of it").click()
    expect(page.get_by_role("tab", name="Heatmap", selected=True)).to_be_visible()
    expect(page.get_by_role("figure", name="frames")).to_contain_text("1.999e+3")
    seen.check()
    sizes = "performance.getEntriesByType('resource').reduce((sum, one) => sum + one.transferSize, 0)"
    assert 300_000 < page.evaluate(sizes) < 500_000
    [read] = [url for url in asked if "/grove/data" in url]
    assert parse_qs(read)["selection"] == ["0,:,:"]
    page.get_by_role("slider", name="D0").focus()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("figure", name="frames")).to_contain_text("3.999e+3")


SHOWN = {
    "frames": "1.999e+3",
    "linked": "1.999e+3",
    "soft": "1.999e+3",
    "curve": "0.8",
    "complex": "Amplitude",
    "table": "2.500e+0",
    "wide": "1.2e+18",
    "title": CANARY,
    NAME: CANARY,
    "lost": "Nothing to display",
    "nowhere": "Nothing to display",
}
TOLD = {
    "huge": "20000 × 20000 values (1600 MB) are more than is drawn at once: choose a part",
    "virtual": "its values are in other files (inner.h5): open those",
}


def test_whatever_is_in_a_file_is_drawn_or_told_and_none_of_it_is_markup(look: Open, files: Mapping[str, File]) -> None:
    seen = look("hana")
    page = explore(seen, files["scan.h5"], "/entry/curve")
    for name, shown in SHOWN.items():
        expect(choose(page, name)).to_contain_text(shown)
    page.get_by_role("tab", name="Inspect").click()
    expect(choose(page, "entry").get_by_role("row").filter(has_text=NAME)).to_contain_text("onerror=")
    found = choose(page, "frames")
    for text in ("counts", "offsets", "is_good", "3 x 40 x 50 = 6000", "Integer (unsigned), 16-bit, little-endian"):
        expect(found).to_contain_text(text)
    seen.check()
    page.get_by_role("tab", name="Display").click()
    for name, told in TOLD.items():
        expect(choose(page, name)).to_contain_text(told)


def test_the_viewer_fits_on_a_phone_and_by_night(look: Open, files: Mapping[str, File]) -> None:
    seen = look("hana", viewport=PHONE, color_scheme="dark")
    page = seen.page
    page.goto(f"/files/{files['scan.h5'].uid}/explore?name=/entry/frames")
    expect(page.get_by_role("figure", name="frames")).to_contain_text("1.999e+3")
    seen.check()


def test_a_broken_file_is_told_in_a_sentence(look: Open, files: Mapping[str, File]) -> None:
    page = look("hana").go(f"/files/{files['broken.h5'].uid}/explore")
    expect(page.get_by_role("alert")).to_contain_text("truncated file")
    assert page.locator("#viewer").count() == 0


def test_slices_are_kept_as_files_with_the_values_that_they_have(look: Open, files: Mapping[str, File]) -> None:
    page = look("hana").page
    of = f"/files/{files['scan.h5'].uid}/grove/data?path=/entry/frames&selection=1:2,:5,::10"
    kept = np.load(io.BytesIO(page.request.get(f"{of}&format=npy").body()))
    assert np.array_equal(kept, FRAMES[1:2, :5, ::10])
    picture = tifffile.imread(io.BytesIO(page.request.get(f"{of}&format=tiff").body()))
    assert np.array_equal(picture, FRAMES[1:2, :5, ::10])
    raw = page.request.get(f"{of}&format=bin")
    assert np.array_equal(np.frombuffer(raw.body(), "<u2"), FRAMES[1:2, :5, ::10].ravel())
    odd = page.request.get(f"{of}&format=exe")
    assert (odd.status, odd.json()["message"]) == (422, "format is one of bin, json, npy, tiff")
    assert page.request.get(f"{of}&selection=x").status == 422


def test_the_viewer_shows_nobody_what_they_may_not_read(look: Open, files: Mapping[str, File]) -> None:
    page = look("ivan").page
    for path in ("explore", "grove/meta?path=/", "grove/attr?path=/", "grove/data?path=/entry/curve", "grove/paths"):
        answer = page.request.get(f"/files/{files['scan.h5'].uid}/{path}")
        assert answer.status == 404, path
        assert "entry" not in answer.text()


def test_scale_range_and_colours_are_chosen_by_keyboard_on_a_phone(look: Open, files: Mapping[str, File]) -> None:
    seen = look("hana", viewport=PHONE)
    page = seen.go(f"/files/{files['inner.h5'].uid}/preview")
    picture = page.get_by_role("img", name="Frame 0 of /frames")
    page.get_by_label("Scale").focus()
    page.keyboard.press("ArrowDown")
    expect(picture).to_have_attribute("src", re.compile("scale=linear"))
    expect(page.get_by_label("Scale")).to_be_focused()
    page.locator("#colours").focus()
    page.keyboard.type("grey")
    expect(picture).to_have_attribute("src", re.compile("colours=grey"))
    page.get_by_label("To", exact=True).focus()
    page.keyboard.type("500")
    page.keyboard.press("Enter")
    expect(picture).to_have_attribute("src", re.compile("high=500.*scale=linear.*colours=grey"))
    seen.check()


def test_who_waits_for_room_does_not_wait_for_ever() -> None:
    with room(0), room(0), pytest.raises(UnavailableError, match="try again"), room(0.01):
        pass
    with room(0):
        pass
