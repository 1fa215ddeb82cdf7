"""DAQs and uploads in the browser: starting, seeing where each file stands, stopping."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.users import Role
from beamkeeper.testing.portal import CANARY, Look, Site

Open = Callable[..., Look]


@pytest.fixture(scope="module")
def taken(site: Site) -> Experiment:
    made = site.experiment("taken")
    site.person("mona", role=Role.STATION_MANAGER)
    site.person("viv", role=Role.STATION_VIEWER)
    return made


def test_a_daq_is_started_watched_and_stopped(look: Open, site: Site, taken: Experiment) -> None:
    source = site.source("taken")
    (source / (CANARY.replace("/", "") + ".dat")).write_bytes(b"data")
    seen = look("mona")
    page = seen.go(f"/experiments/{taken.uid}/daqs")
    page.get_by_label("Directory at the station").fill("relative")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("alert")).to_contain_text("whole path")
    page.get_by_label("Directory at the station").fill(str(source))
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/daqs/*")
    [daq] = site.client.daqs.list(experiment_uid=taken.uid)
    assert daq.started_by == "mona"
    page.get_by_role("button", name="Stop after a last look").click()
    site.client.daqs.wait(daq.uid, timeout_s=60)
    page.reload()
    expect(page.get_by_role("cell", name="available")).to_be_visible()
    seen.check()
    page.goto(f"/experiments/{taken.uid}")
    expect(page.get_by_text("Everything that arrived is stored")).to_be_visible()
    seen.check()
    seen.go(f"/experiments/{taken.uid}/ledger")


def test_an_upload_is_started_and_ends(look: Open, site: Site, taken: Experiment) -> None:
    source = site.source("taken-at-once")
    (source / "one.dat").write_bytes(b"one")
    seen = look("mona")
    page = seen.go(f"/experiments/{taken.uid}/uploads")
    page.get_by_label("Directory at the station").fill(str(source))
    page.get_by_label("Directory below it").fill("once")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/uploads/*")
    [upload] = site.client.uploads.list(experiment_uid=taken.uid)
    site.client.uploads.wait(upload.uid, timeout_s=60)
    assert page.request.get(f"{page.url}.json").json()["items"][0]["state"] == "available"


def test_whoever_only_looks_is_offered_no_start_and_is_refused(look: Open, site: Site, taken: Experiment) -> None:
    page = look("viv").go(f"/experiments/{taken.uid}/daqs")
    assert page.get_by_label("Directory at the station").count() == 0
    token = page.locator("input[name=form_token]").first.input_value()
    before = len(list(site.client.daqs.list(experiment_uid=taken.uid)))
    form: dict[str, str | float | bool] = {"form_token": token, "directory": str(site.source("taken"))}
    answer = page.request.post(f"/experiments/{taken.uid}/daqs", form=form)
    assert answer.status == 422
    assert "may not" in answer.text()
    assert len(list(site.client.daqs.list(experiment_uid=taken.uid))) == before
