"""The whole way in the browser, as a person goes it who never saw it and has the README alone.

It begins with what `make demo` starts, with fewer frames. Its pictures are those of the README and of the docs: `make
pictures` writes them, and nothing else does.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from blake3 import blake3
from playwright.sync_api import Browser, Page, expect

from beamkeeper.testing.portal import Look

DM = (sys.executable, "-c", "from beamkeeper.cli.app import main; main()")
FRAME, RESULT = "data/nexus/scan_003.nxs", "analysis/curves/nexus.txt"
ROOT = Path(__file__).parents[2]


@dataclass
class Demo:
    """A demo that runs, as `make demo` runs it."""

    directory: Path
    environ: dict[str, str]
    process: subprocess.Popen[str]
    url: str = ""

    def way(self) -> str:
        """Return the address that it says at its beginning."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"watch it in a browser: (\S+)", line):
                return found[1]
        raise AssertionError(f"the demo says no way in, and ended with {self.process.wait()}")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BEAMKEEPER_", "XDG_"))}
    environ = {**kept, "HOME": str(tmp_path)}
    words = ("demo", "--frames", "50", "--rate", "80")
    with subprocess.Popen(
        (*DM, *words), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Demo(tmp_path / ".local/share/beamkeeper-demo", environ, process)
        finally:
            process.terminate()
            process.communicate()
            subprocess.run((*DM, "demo", "--stop"), env=environ, capture_output=True, check=False)


@pytest.mark.timeout(300)
def test_from_make_demo_to_a_result_that_leads_back_to_its_frame(browser: Browser, demo: Demo) -> None:
    way = urlsplit(demo.way())
    demo.url = f"{way.scheme}://{way.netloc}"
    seen = Look(browser, demo)
    try:
        page = seen.go(way.path)
        page.get_by_role("button", name="Go in").click()
        files_arrive(seen, page)
        told, _ = demo.process.communicate(timeout=110)
        assert demo.process.returncode == 0, told
        assert "Every file is stored, verified and catalogued as it was written." in told
        a_frame_is_found_again(seen, page)
        a_workflow_is_run_on_it(seen, page)
        the_result_leads_back(seen, page, demo)
    finally:
        seen.close()


def files_arrive(seen: Look, page: Page) -> None:
    """Watch the station while the detector writes."""
    page.goto("/station")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=re.compile("^demo-")))
    expect(row.locator("td").nth(4)).to_have_text(re.compile("^[1-9]"), timeout=60_000)
    page.evaluate("window.wasNotLoadedAgain = true")
    before = row.locator("td").nth(4).inner_text()
    expect(row.locator("td").nth(4)).not_to_have_text(before, timeout=30_000)
    assert page.evaluate("window.wasNotLoadedAgain")
    seen.picture("station")


def a_frame_is_found_again(seen: Look, page: Page) -> None:
    """Walk to a frame and look at it; then find it among all by its energy."""
    page.get_by_role("link", name="Experiments").click()
    page.get_by_label("Part of a name").fill("demo")
    page.keyboard.press("Enter")
    seen.picture("experiments")
    page.get_by_role("link", name=re.compile("^demo-")).click()
    expect(page.get_by_text("Everything that arrived is stored")).to_be_visible()
    page.get_by_role("link", name="Files", exact=True).last.click()
    for directory in ("data/", "nexus/"):
        page.get_by_role("link", name=directory, exact=True).click()
    page.get_by_role("link", name=FRAME).click()
    expect(page.locator("#preview img, #preview canvas").first).to_be_visible(timeout=30_000)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Files").click()
    page.get_by_label("Conditions").fill("energy >= 12 keV and energy < 13 keV")
    page.get_by_label("Metadata columns").fill("energy")
    page.keyboard.press("Enter")
    expect(page.get_by_role("cell", name=re.compile("^12(.0)? keV"))).to_have_count(1)
    seen.picture("search")
    page.get_by_role("link", name=FRAME).click()
    expect(page.locator("#preview img, #preview canvas").first).to_be_visible(timeout=30_000)
    seen.picture("file")


def a_workflow_is_run_on_it(seen: Look, page: Page) -> None:
    """Start the demo's workflow on the frame, and see it end."""
    page.get_by_role("link", name="Run a workflow on it").click()
    page.get_by_role("link", name="integrate").click()
    expect(page.get_by_label("Files, by their paths")).to_have_value(FRAME)
    seen.picture("workflow", height=620)  # below it stands where this Python is
    page.get_by_role("button", name="Run").click()
    page.wait_for_url("**/jobs/*")
    expect(page.locator("#job .state").first).to_have_text("done", timeout=60_000)
    expect(page.get_by_role("button", name="Run again as it was")).to_be_visible()
    seen.picture("job", height=560)  # likewise


def the_result_leads_back(seen: Look, page: Page, demo: Demo) -> None:
    """Go from the frame to the result, see what that was made from, and download both."""
    page.go_back()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Files").click()
    page.get_by_label("Conditions").fill("energy >= 12 keV and energy < 13 keV")
    page.keyboard.press("Enter")
    page.get_by_role("link", name=FRAME).click()
    page.get_by_role("region", name="Used for").get_by_role("link").filter(has_text="nexus.txt").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(RESULT)
    made_from = page.get_by_role("region", name="Made from")
    expect(made_from.get_by_role("link").filter(has_text="scan_003.nxs")).to_be_visible()
    expect(page.get_by_label("Beginning of the file")).to_contain_text("intensity")
    seen.picture("provenance")
    seen.check()
    with page.expect_download() as result:
        page.get_by_role("button", name="Download").click()
    assert len(result.value.path().read_text().splitlines()) > 100
    made_from.get_by_role("link").filter(has_text="scan_003.nxs").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(FRAME)
    with page.expect_download() as frame:
        page.get_by_role("button", name="Download").click()
    [written] = demo.directory.glob("demo-*/detector/nexus/scan_003.nxs")
    assert blake3(frame.value.path().read_bytes()).digest() == blake3(written.read_bytes()).digest()


def test_the_pictures_of_the_readme_are_those_that_the_tour_makes() -> None:
    made = set(re.findall(r"seen\.picture\(\"(\w+)\"", Path(__file__).read_text()))
    shown = re.findall(r"!\[[^]]*\]\(docs/pictures/(\w+)\.png\)", (ROOT / "README.md").read_text())
    assert shown
    assert set(shown) <= made
    assert {path.stem for path in (ROOT / "docs/pictures").glob("*.png")} == made
