"""The overview: what runs, live and without a click, and nothing of what somebody may not see."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import httpx2
import pytest
from playwright.sync_api import expect

from beamkeeper.domain.acquisition import Acquisition, NewDaq
from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.users import Role
from beamkeeper.portal.live import Lookout
from beamkeeper.testing.portal import PHONE, Look, Site

Open = Callable[..., Look]


@pytest.fixture(scope="module")
def lives(site: Site) -> Experiment:
    made = site.experiment("lives")
    site.person("lea", experiment=made)
    site.person("stan", role=Role.STATION_VIEWER)
    site.person("otto", experiment=site.experiment("ottos-own"))
    return made


@pytest.fixture
def daq(site: Site, lives: Experiment) -> Acquisition:
    source = site.source("lives")
    return site.client.daqs.start(NewDaq(experiment_uid=lives.uid, path=str(source).lstrip("/"), take_over=True))


def test_a_page_follows_a_daq_without_being_loaded_again(
    look: Open, site: Site, lives: Experiment, daq: Acquisition
) -> None:
    seen = look("lea")
    page = seen.go("/station")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="lives"))
    expect(row).to_be_visible()
    page.evaluate("window.wasNotLoadedAgain = true")
    for number in range(3):
        (site.source("lives") / f"frame_{number}.tif").write_bytes(b"frame")
    expect(row.locator("td").nth(4)).to_have_text("3", timeout=30_000)
    assert page.evaluate("window.wasNotLoadedAgain")
    site.client.daqs.stop(daq.uid)
    expect(row).to_have_count(0, timeout=30_000)
    seen.check()


def test_what_runs_is_told_to_those_only_who_may_see_it(look: Open, lives: Experiment, daq: Acquisition) -> None:
    staff = look("stan", viewport=PHONE)
    expect(staff.go("/station").get_by_role("link", name="lives")).to_be_visible()
    other = look("otto")
    page = other.go("/station")
    expect(page.get_by_text("Nothing runs that you may see")).to_be_visible()
    # Events come to the one page as to the other; what is drawn of them is not the same.
    first = page.get_by_text("As of").inner_text()
    page.wait_for_function("before => !document.body.innerText.includes(before)", arg=first)
    assert str(lives.uid) not in page.content()
    assert page.get_by_text("lives", exact=True).count() == 0


def test_who_comes_back_while_a_feed_is_still_read_is_told_of_news(site: Site) -> None:
    lookout = Lookout(lambda: nullcontext(site.client))

    async def comes() -> None:
        rung = asyncio.Event()
        lookout.watch(rung)
        await asyncio.wait_for(rung.wait(), 30)
        lookout.leave(rung)

    def come() -> None:
        with ThreadPoolExecutor(1) as pool:  # the browser has a loop of its own in this thread
            pool.submit(lambda: asyncio.run(comes())).result()

    come()
    for thread in threading.enumerate():
        if thread.name == "portal-look":
            thread.join(30)
    assert any(thread.name == "portal-acquisition" for thread in threading.enumerate()), "no feed is read any more"
    come()


def test_the_stream_is_closed_to_those_who_are_not_logged_in(site: Site) -> None:
    answer = httpx2.get(f"{site.url}/station/live", trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fstation%2Flive")


def test_a_stream_ends_with_the_session(look: Open, site: Site, lives: Experiment) -> None:
    page = look("stan").page
    before = {one.uid for one in site.client.sessions.list("stan")}
    again = look("stan").page
    again.goto("/station")
    expect(again.get_by_text("As of")).to_be_visible()
    for session in site.client.sessions.list("stan"):
        if session.uid not in before:
            site.client.sessions.revoke(session.uid)
    again.wait_for_function("() => fetch('/station', {redirect: 'manual'}).then(one => one.type == 'opaqueredirect')")
    assert page.request.get("/station").status == 200
