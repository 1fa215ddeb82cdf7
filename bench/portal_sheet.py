"""The contact sheet of many frames: how soon the next pictures are there as one scrolls, and how large the page is."""

from __future__ import annotations

import time
from collections.abc import Iterator

from playwright.sync_api import Browser, Page
from report import Row

from beamkeeper.domain.users import Role
from beamkeeper.portal.sheets import BLOCK
from beamkeeper.testing.portal import DESK, PASSWORD, Site
from beamkeeper.testing.sheets import catalogued, looked_at, service

NEXT_MS, MOST_ELEMENTS = 500.0, 4000
SEEN = """number => {
  const sheets = document.querySelectorAll("ul.sheet");
  if (sheets.length < number) return false;
  const images = [...sheets[number - 1].querySelectorAll("img")];
  return images.length > 0 && images.every((one) => one.src.startsWith("data:image/png"));
}"""


def sheet_rows(site: Site, browser: Browser, pictures: int) -> Iterator[Row]:
    """Scroll through a contact sheet from its top to its end, as fast as it goes."""
    made = site.experiment("bench-sheet")
    site.person("bench-leafer", role=Role.PI, experiment=made)
    with service(site) as by:
        looked_at(by, made, catalogued(by, made, pictures))
    context = browser.new_context(base_url=site.url, viewport={"width": DESK["width"], "height": DESK["height"]})
    page = context.new_page()
    page.goto("/login")
    page.get_by_label("Name", exact=True).fill("bench-leafer")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/experiments")
    page.goto(f"/experiments/{made.uid}/sheet")
    blocks = -(-pictures // BLOCK)
    times = sorted(scrolled(page, number) for number in range(2, blocks + 1))
    elements = page.evaluate("document.querySelectorAll('*').length")
    began = time.perf_counter()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_function(SEEN, arg=1)
    back = 1000 * (time.perf_counter() - began)
    context.close()
    name = f"contact sheet of {pictures:,}"
    yield Row(f"{name}: the next {BLOCK} pictures are there, p95", times[int(0.95 * len(times))], "ms", NEXT_MS)
    yield Row(f"{name}: from its end back to its top", back, "ms", NEXT_MS)
    yield Row(f"{name}: elements of the page at its end", elements, "", MOST_ELEMENTS)


def scrolled(page: Page, number: int) -> float:
    """Scroll to the end, and return after how many milliseconds the pictures that come then are there."""
    began = time.perf_counter()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function(SEEN, arg=number)
    return 1000 * (time.perf_counter() - began)
