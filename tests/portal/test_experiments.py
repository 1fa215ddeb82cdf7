"""Pages of experiments: finding, making, changing, their people, and what somebody is not offered."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from beamkeeper.domain.experiments import Experiment, NewExperimentType
from beamkeeper.domain.users import Role
from beamkeeper.testing.portal import CANARY, PHONE, Look, Site

Open = Callable[..., Look]


@pytest.fixture(scope="module")
def bob(site: Site) -> str:
    return site.person("bob", role=Role.STATION_MANAGER)


@pytest.fixture(scope="module")
def others(site: Site) -> Experiment:
    """An experiment that eve is not in."""
    return site.experiment("others-secret", title="Nobody else's")


@pytest.fixture(scope="module")
def eves(site: Site) -> Experiment:
    """An experiment that eve is in, as a plain user."""
    made = site.experiment("eves-own", title=CANARY, description=CANARY, proposal=CANARY, metadata={"sample": CANARY})
    site.person("eve", experiment=made)
    return made


def test_a_manager_makes_an_experiment_with_the_keyboard_alone_and_changes_it(look: Open, site: Site, bob: str) -> None:
    site.client.experiment_types.create(NewExperimentType(name="XPCS"))
    seen = look(bob)
    page = seen.go("/experiments/new")
    page.get_by_label("Name", exact=True).focus()
    page.keyboard.type("coffee-2026")
    page.get_by_label("Title").focus()
    page.keyboard.type(f"Coffee {CANARY}")
    page.get_by_label("First day").fill("2026-03-01")
    page.keyboard.press("Enter")
    page.wait_for_url("**/experiments/*-*")
    seen.check()
    made = site.client.experiments.get("coffee-2026")
    assert made.title == f"Coffee {CANARY}"
    assert made.starts_at is not None
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Last day").fill("2026-03-04")
    page.get_by_label("Type").select_option("XPCS")
    seen.check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("2026-03-04 23:59:59")).to_be_visible()
    changed = site.client.experiments.get("coffee-2026")
    assert (changed.type, changed.title) == ("XPCS", f"Coffee {CANARY}")


def test_what_is_wrong_with_a_form_is_said_and_what_was_typed_stays(look: Open, bob: str) -> None:
    seen = look(bob, viewport=PHONE)
    page = seen.go("/experiments/new")
    page.get_by_label("Name", exact=True).fill("no name at all")
    page.get_by_label("Title").fill(CANARY)
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_role("alert")).to_contain_text("name:")
    assert page.get_by_label("Title").input_value() == CANARY
    seen.check()


def test_experiments_are_found_sorted_and_paged_at_addresses_that_can_be_mailed(
    look: Open, site: Site, bob: str
) -> None:
    for name in ("zeta", "alpha", "mu"):
        site.experiment(f"sorted-{name}", proposal="GUP-4711")
    page = look(bob).go("/experiments?text=gup-4711&order=name&limit=2")
    names = page.locator("tbody td:nth-child(2)")
    assert names.all_inner_texts() == ["sorted-alpha", "sorted-mu"]
    page.get_by_role("link", name="Next page").click()
    expect(names).to_have_text(["sorted-zeta"])
    page.get_by_role("link", name="First page").click()
    expect(names).to_have_text(["sorted-alpha", "sorted-mu"])
    told = page.request.get("/experiments.json?text=gup-4711&order=name-down").json()
    assert [one["name"] for one in told["items"]] == ["sorted-zeta", "sorted-mu", "sorted-alpha"]
    first = page.request.get("/experiments.json?text=gup-4711&order=name&limit=2").json()
    assert [one["name"] for one in first["items"]] == ["sorted-alpha", "sorted-mu"]
    rest = page.request.get(f"/experiments.json?text=gup-4711&order=name&limit=2&after={first['next']}").json()
    assert ([one["name"] for one in rest["items"]], rest["next"]) == (["sorted-zeta"], None)
    page.goto("/experiments?text=gup-4712")
    expect(page.get_by_text("No experiment matches")).to_be_visible()


def test_what_a_spreadsheet_would_run_is_a_text_in_the_csv(look: Open, site: Site, bob: str) -> None:
    site.experiment("formula", title='=HYPERLINK("http://elsewhere.example")')
    text = look(bob).page.request.get("/experiments.csv?text=formula").text()
    [row] = csv.DictReader(io.StringIO(text))
    assert row["title"] == '\'=HYPERLINK("http://elsewhere.example")'


def test_somebody_sees_their_own_experiments_only_and_is_offered_no_more_than_they_may(
    look: Open, site: Site, eves: Experiment, others: Experiment
) -> None:
    seen = look("eve")
    page = seen.go("/experiments")
    assert page.locator("tbody td:nth-child(2)").all_inner_texts() == ["eves-own"]
    assert page.get_by_role("button", name="New experiment").count() == 0
    seen.go(f"/experiments/{eves.uid}")
    assert page.get_by_role("button", name="Edit").count() == 0
    assert page.get_by_role("button", name="Hide").count() == 0
    seen.go(f"/experiments/{eves.uid}/people")
    assert page.get_by_label("User name").count() == 0
    for path in ("", "/ledger", "/people", "/daqs", "/uploads", "/edit"):
        answer = page.request.get(f"/experiments/{others.uid}{path}")
        assert answer.status == 404, path
        assert "others-secret" not in answer.text()


def test_what_is_not_offered_is_refused_all_the_same(look: Open, site: Site, eves: Experiment) -> None:
    seen = look("eve")
    seen.page.goto("/experiments")
    token = seen.page.locator("input[name=form_token]").first.input_value()

    def send(path: str, **form: str) -> int:
        status: int = seen.page.request.post(path, form={"form_token": token, **form}, max_redirects=0).status
        return status

    top = f"/experiments/{eves.uid}"
    assert send("/experiments/new", name="eves-second", station="TEST") == 422
    assert send(f"{top}/edit", title="Mine") == 422
    assert send(f"{top}/hide") == 403
    assert send(f"{top}/people", username="eve", role="pi") == 422
    assert send(f"{top}/people/remove", username="eve") == 403
    assert "eves-second" not in {one.name for one in site.client.experiments.list()}
    assert site.client.experiments.by_uid(eves.uid) == eves
    assert [member.role for member in site.client.experiments.people(eves.uid)] == [Role.USER]


def test_a_pi_gives_and_takes_roles(look: Open, site: Site, eves: Experiment) -> None:
    made = site.experiment("pis-own")
    site.person("pia", role=Role.PI, experiment=made)
    site.person("carl")
    seen = look("pia")
    page = seen.go(f"/experiments/{made.uid}/people")
    page.get_by_label("User name").fill("nobody-there")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("alert")).to_contain_text("nobody-there")
    page.get_by_label("User name").fill("carl")
    page.get_by_label("Role").select_option("manager")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("cell", name="Carl", exact=True)).to_be_visible()
    seen.check()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Remove carl").click()
    expect(page.get_by_role("cell", name="Carl", exact=True)).to_have_count(0)
    assert [one.username for one in site.client.experiments.people(made.uid)] == ["pia"]
