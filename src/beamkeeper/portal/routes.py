"""How a room says which pages it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from beamkeeper.portal.visits import Page


@dataclass(frozen=True, slots=True)
class PageRoute:
    """A page at an address; only the public ones are for those who are not logged in."""

    path: str
    page: Page
    method: str = "GET"
    is_public: bool = False


def get(path: str, page: Page) -> PageRoute:
    """Return a page to look at."""
    return PageRoute(path, page)


def post(path: str, page: Page) -> PageRoute:
    """Return what a form is sent to."""
    return PageRoute(path, page, "POST")


def forms(path: str, page: Page) -> Iterator[PageRoute]:
    """Yield the JSON and the CSV of a table that stands on the page of something else."""
    for ending in (".json", ".csv"):
        yield PageRoute(f"{path}{ending}", page)


def listing(path: str, page: Page) -> Iterator[PageRoute]:
    """Yield a table with its JSON and its CSV."""
    for ending in (".json", ".csv", ""):  # the last would take the others' for an identifier
        yield PageRoute(f"{path}{ending}", page)
