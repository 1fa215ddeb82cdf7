"""One beamline with its portal for all tests of pages, and browsers that look at it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from beamkeeper.testing import portal
from beamkeeper.testing.portal import Look, Site
from beamkeeper.testing.servers import ServerNotAvailableError


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A beamline that runs, with its portal; tests make what they look at under names of their own."""
    with portal.site(tmp_path_factory.mktemp("portal")) as made:
        yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; ended with these tests, since an event loop runs in their thread as long as it is open."""
    try:
        with portal.chromium() as opened:
            yield opened
    except ServerNotAvailableError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def look(site: Site, browser: Browser) -> Iterator[Callable[..., Look]]:
    """Give what opens a browser, for somebody who is logged in where a name is given."""
    opened: list[Look] = []

    def open_(username: str = "", **options: Any) -> Look:
        made = Look(browser, site, **options)
        opened.append(made)
        if username:
            made.log_in(username)
        return made

    yield open_
    for one in opened:
        one.close()
