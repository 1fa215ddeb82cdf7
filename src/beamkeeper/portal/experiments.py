"""Experiments: the list, one of them with its ledger, making and changing them, and their people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import ValidationError
from starlette.responses import Response

from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.experiments import (
    Experiment,
    ExperimentChange,
    ExperimentOrder,
    ExperimentQuery,
    Member,
    NewExperiment,
)
from beamkeeper.domain.ledger import LedgerCounts, LedgerLine, ledger_lines, ledger_total
from beamkeeper.domain.names import show_path
from beamkeeper.domain.users import EXPERIMENT_ROLES, Action, Publicity, Role, Target
from beamkeeper.portal.papers import papers
from beamkeeper.portal.routes import get, listing, post
from beamkeeper.portal.tables import Column, Rows, Table, rows_after
from beamkeeper.portal.visits import Visit, choice, sentence

PAGE = 50
MOST = 1000
SUGGESTED = 20
TEXTS = ("title", "description", "proposal", "esaf", "licence")

COLUMNS: Sequence[Column[Experiment]] = (
    Column("number", "Id", lambda one: one.number, "count"),
    Column("name", "Name", lambda one: one.name, href=lambda one: f"/experiments/{one.uid}", sort="name"),
    Column("type", "Type", lambda one: one.type),
    Column("station", "Station", lambda one: one.station),
    Column("title", "Title", lambda one: one.title),
    Column("proposal", "Proposal", lambda one: one.proposal),
    Column("pi", "PI", lambda one: one.pi),
    Column("starts_at", "Begins", lambda one: one.starts_at, "time"),
    Column("ends_at", "Ends", lambda one: one.ends_at, "time"),
    Column("created_at", "Made", lambda one: one.created_at, "time"),
)


def _path(experiment: Experiment) -> str:
    return f"/experiments/{experiment.uid}"


def list_(visit: Visit) -> Response:
    """List the experiments that one may see."""
    query = ExperimentQuery(
        text=visit.query.get("text") or None,
        station=visit.query.get("station") or None,
        type=visit.query.get("type") or None,
        order=choice(visit.query.get("order") or ExperimentOrder.NEWEST, ExperimentOrder, "order of experiments"),
        limit=visit.page_size(PAGE, MOST),
    )

    def read(after: str | None) -> Rows[Experiment]:
        page = visit.client.experiments.page(query.model_copy(update={"after": after}))
        return Rows(page.items, page.next)

    has_filters = any(visit.query.get(key) for key in ("text", "station", "type"))
    empty = (
        "No experiment matches: take some of the filters away."
        if has_filters
        else "You are in no experiment yet: ask its PI, or a manager of the station, to add you to one."
    )
    return Table("experiments", COLUMNS, read, empty).answer(
        visit,
        "experiments/list.html",
        orders=list(ExperimentOrder),
        types=visit.client.experiment_types.list(),
        stations=[station.name for station in visit.portal.clients.stations()],
        may_create=bool(_own_stations(visit)),
    )


def _own_stations(visit: Visit) -> list[str]:
    """Return the stations on which one may make experiments."""
    stations = visit.client.stations.list()
    return [one.name for one in stations if visit.may(Action.EXPERIMENT_CREATE, Target(station_uid=one.uid))]


def new(visit: Visit) -> Response:
    """Draw the form for an experiment."""
    return _new_form(visit)


def _new_form(visit: Visit, message: str = "", status: int = 200) -> Response:
    stations = _own_stations(visit)
    known = papers(visit, next(iter(stations), ""))
    return visit.page(
        "experiments/form.html",
        status,
        experiment=None,
        values={**known.values, **visit.form},
        message=message,
        papers=known,
        stations=stations,
        types=visit.client.experiment_types.list(),
        publicities=list(Publicity),
    )


def create(visit: Visit) -> Response:
    """Make an experiment, and go to it."""
    form = visit.form
    try:
        station = form.get("station", "")
        given = {**form.some("name", "station", "type", "pi", "cycle", "publicity", *TEXTS), **_dates(visit, station)}
        made = visit.client.experiments.create(NewExperiment.model_validate(given))
    except ValidationError as error:
        return _new_form(visit, sentence(error), 422)
    except DmError as error:
        return _new_form(visit, error.message, 422)
    return visit.go(_path(made))


def _dates(visit: Visit, station: str, *, is_change: bool = False) -> dict[str, datetime | None]:
    """Return the days of a form: from the morning of the first to the end of the last, at the station."""
    zone = ZoneInfo(visit.portal.zone(station))
    found: dict[str, datetime | None] = {}
    for key, after in (("starts_at", timedelta(0)), ("ends_at", timedelta(days=1, seconds=-1))):
        if text := visit.form.get(key):
            try:
                found[key] = datetime.fromisoformat(text).replace(tzinfo=zone) + after
            except ValueError as error:
                raise InvalidError(f'"{text[:30]}" is no day: write it like 2026-03-31') from error
        elif is_change:
            found[key] = None
    return found


@dataclass(frozen=True)
class Shown:
    """An experiment with what its pages offer."""

    experiment: Experiment
    target: Target
    visit: Visit

    @property
    def path(self) -> str:
        """The address of its pages."""
        return _path(self.experiment)

    @property
    def zone(self) -> str:
        """The zone of its station."""
        return self.visit.portal.zone(self.experiment.station)

    def may(self, action: str) -> bool:
        """Whether something may be done with it."""
        return self.visit.may(Action(action), self.target)


def shown(visit: Visit) -> Shown:
    """Return the experiment that the address names."""
    return shown_of(visit, visit.uid())


def shown_of(visit: Visit, uid: UUID) -> Shown:
    """Return an experiment with what its pages offer."""
    experiment = visit.client.experiments.by_uid(uid)
    return Shown(experiment, experiment.target(datetime.now(ZoneInfo("UTC"))), visit)


def show(visit: Visit) -> Response:
    """Show an experiment: what it is, and where its files stand."""
    of = shown(visit)
    total, fault = LedgerCounts(), ""
    try:
        total = ledger_total(_lines(of))
    except DmError as error:
        fault = error.message
    people = visit.client.experiments.people(of.experiment.uid)
    return visit.page("experiments/show.html", of=of, total=total, fault=fault, people=people)


def _lines(of: Shown) -> list[LedgerLine]:
    """Return where the files of an experiment stand, by directory."""
    client = of.visit.at(of.experiment.station)
    return ledger_lines(client.files.directories(of.experiment.uid), client.arrivals.directories(of.experiment.uid))


LEDGER: Sequence[Column[LedgerLine]] = (
    Column("directory", "Directory", lambda one: show_path(one.relpath), "code"),
    *(
        Column[LedgerLine](name, name.capitalize(), attrgetter(name), "count")
        for name in ("arrived", "stored", "verified", "missing", "growing", "quarantined", "suspect", "skipped")
    ),
    Column("bytes", "Size", lambda one: one.bytes, "size"),
)


def ledger(visit: Visit) -> Response:
    """Show by directory what arrived, is stored, and is verified."""
    of = shown(visit)
    lines = _lines(of)
    limit = visit.page_size(PAGE, MOST)

    def read(after: str | None) -> Rows[LedgerLine]:
        return rows_after(lines, lambda line: bytes(line.relpath), after, limit)

    table = Table(f"{of.experiment.name}-ledger", LEDGER, read, "Nothing has arrived yet.")
    return table.answer(visit, "experiments/ledger.html", of=of, total=ledger_total(lines))


def edit(visit: Visit) -> Response:
    """Draw the form with what there is."""
    of = shown(visit)
    zone = ZoneInfo(of.zone)
    now: dict[str, Any] = {key: value for key, value in of.experiment.model_dump().items() if isinstance(value, str)}
    for key in ("starts_at", "ends_at"):
        if (at := getattr(of.experiment, key)) is not None:
            now[key] = at.astimezone(zone).date().isoformat()
    return _edit_form(visit, of, now)


def _edit_form(visit: Visit, of: Shown, values: dict[str, Any], message: str = "", status: int = 200) -> Response:
    return visit.page(
        "experiments/form.html",
        status,
        experiment=of,
        values=values,
        message=message,
        stations=[],
        types=visit.client.experiment_types.list(),
        publicities=list(Publicity),
    )


def change(visit: Visit) -> Response:
    """Change an experiment, and go back to it."""
    of = shown(visit)
    try:
        given = {
            **{key: visit.form.get(key, "") for key in TEXTS},
            **visit.form.some("type", "publicity"),
            **_dates(visit, of.experiment.station, is_change=True),
        }
        visit.client.experiments.update(of.experiment.uid, ExperimentChange.model_validate(given))
    except ValidationError as error:
        return _edit_form(visit, of, visit.form, sentence(error), 422)
    except DmError as error:
        return _edit_form(visit, of, visit.form, error.message, 422)
    return visit.go(of.path)


def hide(visit: Visit) -> Response:
    """Hide an experiment; its files stay."""
    visit.client.experiments.delete(visit.uid())
    return visit.go("/experiments")


PEOPLE: Sequence[Column[Member]] = (
    Column("full_name", "Name", lambda one: one.full_name),
    Column("username", "User name", lambda one: one.username),
    Column("role", "Role", lambda one: one.role),
)


def people(visit: Visit) -> Response:
    """List the people of an experiment."""
    return _people(visit)


def _people(visit: Visit, message: str = "", status: int = 200) -> Response:
    of = shown(visit)
    empty = "Nobody is in this experiment yet."
    members = visit.client.experiments.people(of.experiment.uid)
    answer = Table(f"{of.experiment.name}-people", PEOPLE, lambda after: Rows(members), empty).answer(
        visit,
        "experiments/people.html",
        of=of,
        may_search=visit.may(Action.USER_READ, Target()),
        roles=sorted(EXPERIMENT_ROLES),
        message=message,
    )
    answer.status_code = status
    return answer


def suggest(visit: Visit) -> Response:
    """Return accounts that have in their names what was typed, to choose from."""
    text = visit.query.get("username", "").strip()[:200]
    found = visit.client.users.page(text=text, limit=SUGGESTED).items if text else ()
    return visit.page("experiments/suggested.html", users=[one for one in found if one.is_enabled])


def add_person(visit: Visit) -> Response:
    """Give somebody a role in an experiment."""
    try:
        role = Role(visit.form.get("role", Role.USER))
        visit.client.experiments.add_user(visit.uid(), visit.form.get("username", ""), role)
    except DmError as error:
        return _people(visit, error.message, 422)
    return visit.go(f"/experiments/{visit.uid()}/people")


def remove_person(visit: Visit) -> Response:
    """Take somebody's role in an experiment away."""
    visit.client.experiments.remove_user(visit.uid(), visit.form.get("username", ""))
    return visit.go(f"/experiments/{visit.uid()}/people")


ROUTES = (
    *listing("/experiments", list_),
    get("/experiments/new", new),
    post("/experiments/new", create),
    get("/experiments/{uid}", show),
    *listing("/experiments/{uid}/ledger", ledger),
    get("/experiments/{uid}/edit", edit),
    post("/experiments/{uid}/edit", change),
    post("/experiments/{uid}/hide", hide),
    *listing("/experiments/{uid}/people", people),
    get("/experiments/{uid}/people/suggested", suggest),
    post("/experiments/{uid}/people", add_person),
    post("/experiments/{uid}/people/remove", remove_person),
)
