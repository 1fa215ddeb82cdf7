"""Workflows and jobs in the browser: what may be run, running it on a file, and its log."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from beamkeeper.domain.experiments import Experiment
from beamkeeper.domain.files import File
from beamkeeper.domain.users import Role
from beamkeeper.domain.workflows.model import Definition
from beamkeeper.domain.workflows.stored import Workflow
from beamkeeper.testing.portal import CANARY, Look, Site

Open = Callable[..., Look]


def definition(command: str) -> Definition:
    return Definition.model_validate(
        {
            "name": "count-bytes",
            "description": CANARY,
            "arguments": {
                "unit": {"type": "choice", "choices": ["bytes", "lines"], "default": "bytes", "help": CANARY},
                "note": {"required": True},
            },
            "stages": {
                "1-count": {"command": command, "needs": []},
                "2-tell": {"command": "echo told $note", "needs": ["1-count"]},
            },
        }
    )


@pytest.fixture(scope="module")
def workflow(site: Site) -> Workflow:
    site.client.workflows.add(definition("wc -c < $filePath"))
    return site.client.workflows.upsert(definition("wc -c $filePath"), note="Name the file.")


@pytest.fixture(scope="module")
def worked_on(site: Site) -> tuple[Experiment, File]:
    made = site.experiment("worked-on")
    site.person("jo", role=Role.USER, experiment=made)
    site.person("kim")
    source = site.source("worked-on")
    (source / "frame.dat").write_bytes(b"1234")
    site.upload(made, source)
    [file] = site.files(made)
    return made, file


def test_a_workflow_is_chosen_for_a_file_filled_in_run_and_its_log_read(
    look: Open, site: Site, workflow: Workflow, worked_on: tuple[Experiment, File]
) -> None:
    seen = look("jo")
    page = seen.go(f"/files/{worked_on[1].uid}")
    page.get_by_role("link", name="Run a workflow on it").click()
    page.get_by_role("link", name="count-bytes").click()
    expect(page.get_by_role("img", name="Stages: 1-count; 2-tell after 1-count")).to_be_visible()
    expect(page.get_by_label("Differences")).to_contain_text("wc -c $filePath")
    seen.check()
    assert page.get_by_label("Experiment", exact=True).input_value() == "worked-on"
    page.get_by_label("unit").select_option("lines")
    page.get_by_label("note (needed)").fill("coffee")
    page.get_by_role("button", name="Run").click()
    page.wait_for_url("**/jobs/*")
    expect(page.locator("#job .state").first).to_have_text("done", timeout=30_000)
    expect(page.get_by_label("Log")).to_have_text("told coffee\n")
    seen.check()
    [job] = site.client.jobs.list(workflow="count-bytes", owner="jo")
    assert (job.arguments["unit"], job.count_files) == ("lines", 1)
    page.goto("/jobs?status=done&workflow=count-bytes")
    expect(page.get_by_role("cell", name="done")).to_be_visible()
    seen.check()


def test_arguments_that_are_wanting_are_told(
    look: Open, workflow: Workflow, worked_on: tuple[Experiment, File]
) -> None:
    page = look("jo").go(f"/workflows/{workflow.uid}")
    page.get_by_label("Experiment", exact=True).fill("no-such")
    page.get_by_label("note (needed)").fill(CANARY)
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("alert")).to_contain_text("no-such")
    assert page.get_by_label("note (needed)").input_value() == CANARY


def test_whoever_is_in_no_experiment_runs_nothing_on_its_files(
    look: Open, site: Site, workflow: Workflow, worked_on: tuple[Experiment, File]
) -> None:
    page = look("kim").page
    page.goto("/jobs")
    token = page.locator("input[name=form_token]").first.input_value()
    form: dict[str, str | float | bool] = {"form_token": token}
    form |= {"experiment": "worked-on", "paths": "data/frame.dat", "argument:note": "x"}
    assert page.request.post(f"/workflows/{workflow.uid}", form=form).status == 403
    assert list(site.client.jobs.list(owner="kim")) == []
