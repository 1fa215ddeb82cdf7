"""Pages of files: finding, browsing, looking inside, getting, sharing; and names that are markup."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import fabio.edfimage
import h5py
import numpy as np
import pytest
import tifffile
from blake3 import blake3
from PIL import Image
from playwright.sync_api import expect

from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import File
from beamkeeper.domain.names import show_path
from beamkeeper.domain.users import Role
from beamkeeper.domain.workflows import checked_definition
from beamkeeper.testing.portal import CANARY, PHONE, Look, Site

Open = Callable[..., Look]
MARKUP = CANARY.replace("/", "") + ".txt"
WORKFLOW = checked_definition({"name": "see-files", "stages": {"1-see": {"command": "ls -l $filePath"}}})
DOCUMENT = '{"sample.name": "coffee"}'
RAMP = np.arange(64 * 96, dtype=np.uint16).reshape(64, 96)


@dataclass(frozen=True)
class Beamtime:
    """An experiment with files, by the ends of their names."""

    experiment: Experiment
    files: Mapping[str, File]

    def __getitem__(self, name: str) -> File:
        return self.files[name]


@pytest.fixture(scope="module")
def beamtime(site: Site) -> Beamtime:
    made = site.experiment("beamtime")
    site.person("fay", role=Role.PI, experiment=made)
    site.person("gus")
    source = site.source("beamtime")
    (source / "scan").mkdir()
    with h5py.File(source / "scan" / "frames.h5", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["data"] = np.stack([RAMP, RAMP * 2, RAMP * 3])
        entry["curve"] = np.linspace(0.0, 1.0, 50)
        energy = entry.create_dataset("instrument/monochromator/energy", data=12.5)
        energy.attrs["units"] = "keV"
    tifffile.imwrite(source / "scan" / "frame.tif", RAMP)
    fabio.edfimage.EdfImage(data=RAMP, header={"sample": CANARY}).write(str(source / "scan" / "frame.edf"))
    (source / "notes.txt").write_text(f"notes {CANARY}")
    (source / MARKUP).write_text("markup")
    site.upload(made, source)
    files = {show_path(file.relpath).rpartition("/")[2]: file for file in site.files(made)}
    site.client.files.set_metadata(files["notes.txt"].uid, {CANARY: CANARY, "sample": {"name": "coffee"}})
    return Beamtime(made, files)


def test_a_file_is_found_by_its_energy_and_its_frame_looked_at(look: Open, beamtime: Beamtime) -> None:
    seen = look("fay")
    page = seen.go("/files")
    page.get_by_label("Conditions").fill("energy >= 12keV")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(1)
    seen.check()
    page.get_by_role("link", name="data/scan/frames.h5").click()
    picture = page.get_by_role("img", name="Frame 0 of /entry/data")
    expect(picture).to_be_visible()
    assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") == 96
    seen.check()
    page.get_by_label("Frame of 3").fill("2")
    page.keyboard.press("Enter")
    expect(page.get_by_role("img", name="Frame 2 of /entry/data")).to_be_visible()
    page.get_by_label("Dataset").select_option("/entry/curve")
    expect(page.get_by_role("img", name="/entry/curve: from 0 to 1, 50 values")).to_be_visible()
    seen.check()


@pytest.mark.parametrize("name", ["frames.h5", "frame.tif", "frame.edf"])
def test_pictures_have_the_colours_of_their_numbers(look: Open, beamtime: Beamtime, name: str) -> None:
    page = look("fay").page
    where = f"/files/{beamtime[name].uid}/frame.png?low=0&high=6143&scale=linear&colours=grey"
    with Image.open(io.BytesIO(page.request.get(where).body())) as picture:
        grey = np.asarray(picture.convert("L"), float)
    assert grey.shape == RAMP.shape
    assert np.abs(grey - RAMP / 6143 * 255).max() < 2


def test_a_query_that_makes_no_sense_is_told_where_it_was_typed(look: Open, beamtime: Beamtime) -> None:
    seen = look("fay", viewport=PHONE)
    page = seen.go(f"/files?q={quote('energy >= ' + CANARY)}")
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.get_by_label("Conditions").input_value() == f"energy >= {CANARY}"
    page = seen.go(f"/files?q={quote('{no json')}")
    expect(page.get_by_role("alert")).to_contain_text("no JSON")


def test_both_notations_find_the_same_and_columns_are_those_wanted(look: Open, beamtime: Beamtime) -> None:
    page = look("fay").page
    short = page.request.get(f"/files.json?q={quote('sample.name = coffee')}&columns=sample.name").json()
    document = page.request.get(f"/files.json?q={quote(DOCUMENT)}&columns=sample.name").json()
    assert short == document
    [found] = short["items"]
    assert (found["path"], found["sample.name"]) == ("data/notes.txt", "coffee")


def test_the_json_of_a_page_has_its_rows_and_goes_on_while_the_csv_has_all(look: Open, beamtime: Beamtime) -> None:
    page = look("fay").page
    where = f"/experiments/{beamtime.experiment.uid}/find"
    every = {str(file.uid) for file in beamtime.files.values()}
    told, found, after = [], set(), ""
    while True:
        told.append(page.request.get(f"{where}.json?limit=2{after}").json())
        found |= {row["uid"] for row in told[-1]["items"]}
        if told[-1]["next"] is None:
            break
        after = f"&after={told[-1]['next']}"
    assert [len(part["items"]) for part in told[:-1]] == [2] * (len(told) - 1)
    assert every <= found
    rows = list(csv.DictReader(io.StringIO(page.request.get(f"{where}.csv?limit=2").text())))
    assert {row["uid"] for row in rows} == found
    assert page.request.get(f"{where}.json?limit=1001").status == 422


def test_facets_lead_to_narrower_searches(look: Open, beamtime: Beamtime) -> None:
    page = look("fay").go(f"/experiments/{beamtime.experiment.uid}/find?q={quote('type = txt')}")
    expect(page.locator("tbody tr")).to_have_count(2)
    page.get_by_role("complementary").get_by_role("link", name="coffee").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert "sample.name" in page.get_by_label("Conditions").input_value()


def test_values_beside_the_files_are_a_page_where_there_is_no_script(
    look: Open, site: Site, beamtime: Beamtime
) -> None:
    where = f"/experiments/{beamtime.experiment.uid}/find"
    page = look("fay", java_script_enabled=False).page
    page.goto(f"{where}?q={quote('type = txt')}")
    page.get_by_role("link", name="Values of their metadata").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Values of the metadata")
    page.get_by_role("link", name="coffee").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    assert page.request.get(f"{where}/values?q={quote('size >')}&keys=sample.name").status == 422
    other = look("gus").page.request
    assert other.get(f"{where}/values?keys=sample.name").status == 404
    assert "coffee" not in other.get("/files/values?keys=sample.name").text()


def test_one_walks_through_directories_to_a_file_whose_name_is_markup(look: Open, beamtime: Beamtime) -> None:
    seen = look("fay", viewport=PHONE, color_scheme="dark")
    page = seen.go(f"/experiments/{beamtime.experiment.uid}/files")
    page.get_by_role("link", name="data/").click()
    expect(page.get_by_role("link", name="scan/")).to_be_visible()
    seen.check()
    page.get_by_role("link", name=f"data/{MARKUP}").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"data/{MARKUP}")
    expect(page.get_by_text("markup", exact=True)).to_be_visible()
    seen.check()


def test_metadata_and_texts_are_shown_as_what_they_are(look: Open, beamtime: Beamtime) -> None:
    seen = look("fay")
    page = seen.go(f"/files/{beamtime['notes.txt'].uid}")
    expect(page.get_by_label("Beginning of the file")).to_have_text(f"notes {CANARY}")
    expect(page.locator("dl.metadata > dt").filter(has_text=CANARY)).to_have_count(1)
    page.get_by_text("How it came about").click()
    page.get_by_text("Ledger: every time").click()
    expect(
        page.get_by_text(re.compile("the same, from the (device|cache), by station"))
    ).to_be_visible()  # kernels keep some
    seen.check()


def test_bytes_come_back_as_they_are_and_are_never_shown_as_a_page(look: Open, beamtime: Beamtime) -> None:
    page = look("fay").page
    file = beamtime["frames.h5"]
    answer = page.request.get(f"/files/{file.uid}/content")
    assert len(answer.body()) == file.size
    [digest] = [one.value for one in file.checksums if one.algorithm == "blake3"]
    assert blake3(answer.body()).hexdigest() == digest
    odd = page.request.get(f"/files/{beamtime[MARKUP].uid}/content")
    assert odd.headers["content-type"] == "application/octet-stream"
    assert odd.headers["content-disposition"].startswith("attachment; ")
    assert "<" not in odd.headers["content-disposition"]


def test_what_was_found_becomes_an_archive_with_a_link_for_others(look: Open, beamtime: Beamtime) -> None:
    seen = look("fay")
    page = seen.go(f"/experiments/{beamtime.experiment.uid}/find?q={quote('directory = data/scan')}")
    page.get_by_role("button", name="Make an archive").click()
    expect(page.get_by_text("3 files")).to_be_visible()
    seen.check()
    got = page.request.get(f"{page.url}/tar").body()
    with tarfile.open(fileobj=io.BytesIO(got)) as archive:
        names = sorted(name.rpartition("/")[2] for name in archive.getnames() if name.endswith(("5", "f")))
    assert names == ["frame.edf", "frame.tif", "frames.h5"]


def test_what_is_ticked_by_keyboard_on_a_phone_becomes_one_tar_that_goes_on_where_it_broke_off(
    look: Open, beamtime: Beamtime
) -> None:
    seen = look("fay", viewport=PHONE)
    page = seen.go(f"/experiments/{beamtime.experiment.uid}/files?dir=data/scan")
    for name in ("frame.edf", "frame.tif"):
        page.get_by_role("checkbox", name=f"Choose data/scan/{name}").press("Space")
    page.get_by_role("button", name="Download the ticked files as one tar").press("Enter")
    expect(page.get_by_text("2 files")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Allow links into this experiment").press("Enter")
    page.get_by_role("button", name="Make a link").press("Enter")
    expect(page.get_by_label("Line for a shell")).to_have_value(re.compile("^curl .*/shared/"))
    seen.check()
    with page.expect_download() as told:
        page.get_by_role("button", name="Download").press("Enter")
    whole = told.value.path().read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        names = sorted(name.rpartition("/")[2] for name in archive.getnames() if "/data/scan/" in name)
    assert names == ["frame.edf", "frame.tif"]
    where = page.get_by_role("button", name="Download").get_attribute("href") or ""
    etag = page.request.get(where, headers={"Range": "bytes=0-0"}).headers["etag"]
    for wanted, if_range, part in (
        ("bytes=1000-", etag, whole[1000:]),
        ("bytes=10-19", etag, whole[10:20]),
        ("bytes=1000-", '"another"', whole),
        ("nonsense", etag, whole),
    ):
        rest = page.request.get(where, headers={"Range": wanted, "If-Range": if_range})
        assert (rest.status, rest.body()) == (206 if part is not whole else 200, part), (wanted, if_range)
    beyond = page.request.get(where, headers={"Range": f"bytes={len(whole)}-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")


def test_what_is_ticked_goes_into_a_dataset_and_to_a_workflow(look: Open, site: Site, beamtime: Beamtime) -> None:
    seen = look("fay")
    page = seen.go(f"/files?q={quote('experiment = beamtime and directory = data/scan')}")
    page.get_by_label("Choose all on this page").check()
    page.get_by_label("Choose data/scan/frames.h5").uncheck()
    page.get_by_label("Dataset").fill("two-frames")
    page.get_by_role("button", name="Add them to it").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    assert page.get_by_label("Conditions").input_value() == 'dataset = "two-frames"'
    made, frames = site.client.datasets.named(beamtime.experiment.uid, "two-frames"), ["frame.edf", "frame.tif"]
    assert sorted(show_path(one.file.relpath)[10:] for one in site.client.datasets.files(made.uid)) == frames
    page.get_by_role("button", name="Run a workflow on them").click()
    expect(page.get_by_role("alert")).to_contain_text("no file is ticked")
    page.go_back()
    page.get_by_label("Choose all on this page").check()
    page.get_by_role("button", name="Run a workflow on them").click()
    expect(page.get_by_text("on the ticked files")).to_be_visible()
    wanted = page.url.partition("?")[2]
    site.client.workflows.upsert(WORKFLOW)
    page.reload()
    page.get_by_role("link", name="see-files").click()
    assert wanted in page.url
    paths = page.get_by_label("Files, by their paths").input_value().split()
    assert sorted(path.removeprefix("data/scan/") for path in paths) == frames
    assert page.get_by_label("Experiment", exact=True).input_value() == "beamtime"


def test_nobody_ticks_files_that_they_may_not_read(look: Open, site: Site, beamtime: Beamtime) -> None:
    page = look("gus").page
    page.goto("/files")
    token = page.locator("input[name=form_token]").first.input_value()
    for what in ("archive", "dataset", "workflow"):
        form: dict[str, str | float | bool] = {
            "form_token": token,
            "file": str(beamtime["frames.h5"].uid),
            "dataset": "x",
        }
        assert page.request.post(f"/files/chosen/{what}", form=form).status == 404, what


def test_a_contact_sheet_shows_the_frames_of_an_experiment(look: Open, beamtime: Beamtime) -> None:
    seen = look("fay")
    page = seen.go(f"/experiments/{beamtime.experiment.uid}/sheet")
    pictures = page.locator("ul.sheet img")
    expect(pictures).to_have_count(3)
    for number in range(3):
        expect(pictures.nth(number)).to_have_attribute("src", re.compile("^data:image/png;"))
        assert pictures.nth(number).evaluate("one => one.decode().then(() => one.naturalWidth)") == 96


def test_whoever_may_not_read_an_experiment_sees_nothing_of_its_files(look: Open, beamtime: Beamtime) -> None:
    page = look("gus").go(f"/files?q={quote('energy >= 12keV')}")
    expect(page.get_by_text("No file matches")).to_be_visible()
    file, top = beamtime["frames.h5"].uid, f"/experiments/{beamtime.experiment.uid}"
    places = [f"/files/{file}", f"/files/{file}/preview", f"/files/{file}/frame.png", f"/files/{file}/content"]
    for path in [*places, f"{top}/files", f"{top}/find", f"{top}/sheet"]:
        answer = page.request.get(path)
        assert answer.status == 404, path
        assert "frames.h5" not in answer.text()
