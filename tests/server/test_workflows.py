"""Workflows over HTTP: versions are kept, and only managers of the station say what runs there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from beamkeeper.cli.app import run
from beamkeeper.client import Client
from beamkeeper.db.base import new_uid
from beamkeeper.domain.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
)
from beamkeeper.domain.experiments import NewExperiment
from beamkeeper.domain.status import Service
from beamkeeper.domain.users import NewGrant, NewUser, Role
from beamkeeper.domain.workflows import Definition, FileFormat, checked_definition, parse_definition
from beamkeeper.domain.workflows.stored import WorkflowQuery
from beamkeeper.testing.services import Running, running
from beamkeeper.testing.workflows import FIGURE_3

NUMBERS = count(1)
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def beamline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(Service.PROCESSING, directory=tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture
def on_each_database(database_url: str, tmp_path: Path) -> Iterator[Running]:
    with running(Service.PROCESSING, directory=tmp_path, url=database_url) as made:
        yield made


def defined(command: str = "date", **keys: Any) -> Definition:
    """Return a workflow of one stage, of a name that is new."""
    name = keys.pop("name", None) or f"w{next(NUMBERS)}"
    return checked_definition({"name": name, "stages": {"1": {"command": command}}, **keys})


def person(beamline: Running, role: Role | None) -> Client:
    """Return the client of somebody who holds a role."""
    name = f"u{next(NUMBERS)}"
    beamline.client.users.create(NewUser(username=name, password=PASSWORD))
    station = beamline.bootstrap.station
    if role in (Role.STATION_MANAGER, Role.STATION_VIEWER):
        beamline.client.users.grant(NewGrant(username=name, role=role, station_uid=station.uid))
    elif role is not None:
        experiment = beamline.client.experiments.create(NewExperiment(name=f"e{name}", station=station.name))
        beamline.client.experiments.add_user(experiment.uid, name, role)
    client = beamline.as_(username=name, password=PASSWORD)
    client.sessions.whoami()
    return client


def test_versions_are_kept_on_each_database(on_each_database: Running) -> None:
    workflows = on_each_database.client.workflows
    figure = parse_definition(FIGURE_3, FileFormat.PYTHON)
    first = workflows.add(figure)
    assert (first.owner, first.number, first.definition) == ("pelmer", 1, figure)
    assert workflows.add(figure) == first
    changed = figure.model_copy(update={"description": "better"})
    with pytest.raises(AlreadyExistsError):
        workflows.add(changed)
    second = workflows.update(first.uid, changed, note="a better text")
    assert workflows.upsert(changed) == second
    assert [(one.number, one.is_newest, one.note) for one in workflows.history(first.uid)] == [
        (2, True, "a better text"),
        (1, False, ""),
    ]
    assert workflows.get(first.uid, 1).definition == figure
    workflows.delete(first.uid)
    with pytest.raises(NotFoundError):
        workflows.named("tomo-demo-01")
    assert workflows.upsert(figure).number == 3
    names = [workflows.add(defined()).name for _ in range(3)]
    assert [one.name for one in workflows.list(WorkflowQuery(limit=2))] == sorted([*names, "tomo-demo-01"])


def test_a_name_that_two_have_needs_its_owner(beamline: Running) -> None:
    for owner in ("ann", "ben"):
        beamline.client.workflows.add(defined(name="both", owner=owner))
    with pytest.raises(ConflictError, match="ann, ben"):
        beamline.client.workflows.named("both")
    assert beamline.client.workflows.named("both", "ben").owner == "ben"


def test_what_is_dangerous_is_refused_and_lint_says_so(beamline: Running) -> None:
    dangerous = defined("$program x")
    with pytest.raises(InvalidError, match="which program"):
        beamline.client.workflows.add(dangerous)
    assert "which program" in beamline.client.workflows.lint(dangerous)[0].message


CALLS: dict[str, tuple[Callable[[Client, Any], object], set[Role | None]]] = {
    "add": (lambda client, kept: client.workflows.add(defined()), set()),
    "update": (lambda client, kept: client.workflows.update(kept.uid, kept.definition), set()),
    "upsert": (lambda client, kept: client.workflows.upsert(kept.definition), set()),
    "delete": (lambda client, kept: client.workflows.delete(kept.uid), set()),
    "list": (lambda client, kept: list(client.workflows.list()), {Role.STATION_VIEWER, Role.PI, Role.USER}),
    "show": (lambda client, kept: client.workflows.get(kept.uid), {Role.STATION_VIEWER, Role.PI, Role.USER}),
    "history": (lambda client, kept: client.workflows.history(kept.uid), {Role.STATION_VIEWER, Role.PI, Role.USER}),
    "lint": (lambda client, kept: client.workflows.lint(defined()), {Role.STATION_VIEWER, Role.PI, Role.USER}),
}
"""Which roles may, beside those who manage the station."""


@pytest.fixture(scope="module")
def people(beamline: Running) -> dict[Role | None, Client]:
    return {
        role: person(beamline, role) for role in (None, Role.USER, Role.PI, Role.STATION_VIEWER, Role.STATION_MANAGER)
    }


@pytest.mark.parametrize("name", CALLS)
def test_each_role_may_what_the_matrix_says(beamline: Running, people: dict[Role | None, Client], name: str) -> None:
    call, allowed = CALLS[name]
    for role, client in people.items():
        kept = beamline.client.workflows.add(defined(userAccount="beamline"))
        client.credentials.mirror = beamline.client.credentials.mirror
        if role in allowed | {Role.STATION_MANAGER}:
            call(client, kept)
            continue
        with pytest.raises(NotPermittedError):
            call(client, kept)
        assert [one.number for one in beamline.client.workflows.history(kept.uid)] == [1]
    with pytest.raises(NotAuthenticatedError):
        call(beamline.as_(None), beamline.client.workflows.add(defined()))


def test_of_what_is_not_there_nothing_is_told(beamline: Running) -> None:
    for call in (beamline.client.workflows.get, beamline.client.workflows.history, beamline.client.workflows.delete):
        with pytest.raises(NotFoundError):
            call(new_uid())


@pytest.fixture
def dm(beamline: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("BEAMKEEPER_URL", beamline.urls[Service.STORAGE])
    monkeypatch.setenv("BEAMKEEPER_TOKEN", beamline.bootstrap.operator.token)

    def words(*given: str, status: int = 0) -> str:
        assert run(given) == status
        printed = capsys.readouterr()
        return printed.out + printed.err

    return words


def test_the_commands_from_adding_to_deleting(dm: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "figure.py"
    file.write_text(FIGURE_3.replace("tomo-demo-01", "by-command"))
    assert 'workflow "by-command" of pelmer is in version 1' in (said := dm("workflow", "add", str(file)))
    assert "warning: stage" in said
    file.write_text(file.read_text().replace("Tomo Demo 01", "Better"))
    assert "in version 2" in dm("workflow", "update", str(file), "--note", "a better text")
    assert "in version 2" in dm("workflow", "upsert", str(file))
    assert "by-command" in dm("workflow", "list", "--owner", "pelmer")
    assert "txmtwo" in dm("workflow", "show", "by-command")
    assert "Tomo Demo 01" in dm("workflow", "show", "by-command", "--version", "1")
    assert "a better text" in dm("workflow", "history", "by-command")
    assert json.loads(dm("workflow", "show", "by-command", "--json"))["number"] == 2
    dm("workflow", "delete", "by-command", "--yes")
    dm("workflow", "show", "by-command", status=6)


def test_lint_ends_with_a_status_of_its_own(dm: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("name: w\nstages:\n  '1':\n    command: date\n")
    assert "nothing is wrong" in dm("workflow", "lint", str(file))
    file.write_text("name: w\nstages:\n  '1':\n    command: echo 'x\n")
    assert "never closed" in dm("workflow", "lint", str(file), status=10)
    assert "there is no such key" in dm("workflow", "lint", str(_with(tmp_path, "name: w\nstage: {}\n")), status=2)
    file.write_bytes(b"name: w\xff\n")
    assert "name a text file" in dm("workflow", "add", str(file), status=2)


def _with(tmp_path: Path, text: str) -> Path:
    (tmp_path / "x.yaml").write_text(text)
    return tmp_path / "x.yaml"


def test_a_definition_is_tried_out_on_files_and_leaves_nothing(dm: Callable[..., str], tmp_path: Path) -> None:
    for name in ("a b.dat", "c.dat"):
        (tmp_path / name).write_text(name)
    counts = f"{sys.executable} -c 'import sys; print(\"size:\", len(open(sys.argv[1]).read()))' $filePath"
    stages = {
        "1": {"command": counts, "outputVariableRegexList": ["size: (?P<size>.*)"]},
        "2": {"command": "echo $size > result && dm upload start x", "outputs": ["result"]},
        "3": {"command": "exit 3", "runIf": '"$size" < 6'},
    }
    file = tmp_path / "w.json"
    file.write_text(json.dumps({"name": "tried", "stages": stages}))
    paths = [word for path in sorted(tmp_path.glob("*.dat")) for word in ("--on", str(path))]
    before = set(tmp_path.iterdir())
    told = json.loads(dm("workflow", "test", str(file), *paths, "--json", status=10))["trials"]
    assert [(trial["variables"]["size"], trial["failure"][:9]) for trial in told] == [("7", ""), ("5", 'stage "3"')]
    assert set(tmp_path.iterdir()) == before
    assert "2 files, 1 failed" in dm("workflow", "test", str(file), *paths, status=10)
