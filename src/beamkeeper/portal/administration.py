"""Administration: accounts and roles, stations, experiment types, storage areas, syncs, API keys, the audit log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr, ValidationError
from starlette.responses import Response

from beamkeeper.domain.audit_log import AuditEntry, AuditQuery
from beamkeeper.domain.errors import DmError, InvalidError
from beamkeeper.domain.experiments import ExperimentType, NewExperimentType, NewStation, Station
from beamkeeper.domain.people import Sync, SyncKind
from beamkeeper.domain.status import Service
from beamkeeper.domain.storage import AreaCheck, NewStorageArea, StorageArea
from beamkeeper.domain.users import SITE, Action, ApiKey, NewKey, NewUser, Scope, User
from beamkeeper.portal.routes import get, listing, post
from beamkeeper.portal.standings import Standing, standing
from beamkeeper.portal.tables import Column, Rows, Table
from beamkeeper.portal.visits import Visit, sentence, whole

PAGE = 100
LONGEST_KEY_DAYS = 366


@dataclass(frozen=True)
class Field:
    """A field of a form of this room."""

    name: str
    label: str
    kind: str = "text"
    hint: str = ""
    choices: Sequence[str] = ()
    is_needed: bool = False
    value: str = ""


@dataclass(frozen=True)
class Said:
    """What came of a form: a message, and perhaps a secret that is shown this once."""

    message: str = ""
    is_good: bool = False
    secret: str = ""

    @property
    def status(self) -> int:
        """The status of the answer."""
        return 200 if self.is_good or not self.message else 422


NOTHING = Said()


def home(visit: Visit) -> Response:
    """Show what may be looked after."""
    is_admin = visit.may(Action.SITE_ADMINISTER, SITE)
    is_staff = is_admin or any(grant.station_uid is not None for grant in visit.caller.grants)
    return visit.page("administration/home.html", is_admin=is_admin, is_staff=is_staff)


def _page(visit: Visit, title: str, table: Table[Any], said: Said = NOTHING, **values: Any) -> Response:
    shown: dict[str, Any] = {
        "title": title,
        "said": said,
        "fields": (),
        "button": "",
        "action": None,
        "is_searched": False,
    }
    answer = table.answer(visit, "administration/page.html", **{**shown, **values})
    answer.status_code = said.status
    return answer


def _tried(visit: Visit, again: Any, done: Any) -> Response:
    """Do what a form asks for, and draw its page again with what came of it."""
    try:
        said: Said = done()
    except ValidationError as error:
        said = Said(sentence(error))
    except DmError as error:
        said = Said(error.message)
    drawn: Response = again(visit, said)
    return drawn


def users(visit: Visit, said: Said = NOTHING) -> Response:
    """List the accounts."""
    columns: Sequence[Column[User]] = (
        Column(
            "username", "User name", lambda one: one.username, href=lambda one: f"/administration/users/{one.username}"
        ),
        Column("full_name", "Name", lambda one: one.full_name),
        Column("email", "E-mail", lambda one: one.email),
        Column("institution", "Institution", lambda one: one.institution),
        Column("source", "From", lambda one: one.source),
        Column("is_enabled", "Enabled", lambda one: one.is_enabled, "bool"),
        Column("created_at", "Since", lambda one: one.created_at, "time"),
    )

    text = visit.query.get("text", "").strip()[:200]

    def read(after: str | None) -> Rows[User]:
        page = visit.client.users.page(after, text=text or None)
        return Rows(page.items, page.next)

    fields = (
        Field("username", "User name", is_needed=True, hint="Small letters, digits, . _ -"),
        Field("full_name", "Full name"),
        Field("email", "E-mail"),
        Field("password", "Password", "password", "At least 8 characters; none where it is checked elsewhere."),
    )
    table = Table("users", columns, read, "No account has this in its user name, name or e-mail.")
    return _page(visit, "Accounts", table, said, fields=fields, button="Make an account", is_searched=True)


def add_user(visit: Visit) -> Response:
    """Make an account."""

    def done() -> Said:
        given: dict[str, Any] = visit.form.some("username", "full_name", "email")
        if password := visit.form.raw("password"):
            given["password"] = SecretStr(password)
        made = visit.client.users.create(NewUser.model_validate(given))
        return Said(f"{made.username} has an account now.", is_good=True)

    return _tried(visit, users, done)


def stations(visit: Visit, said: Said = NOTHING) -> Response:
    """List the stations that one is staff of."""
    standings = standing(visit)

    def of(read: Callable[[Standing], Any]) -> Callable[[Station], Any]:
        return lambda one: read(standings[one.name]) if one.name in standings else None

    columns: Sequence[Column[Station]] = (
        Column("name", "Station", lambda one: one.name),
        Column("title", "Title", lambda one: one.title),
        Column("version", "Version", of(lambda one: one.version)),
        Column("contact", "Last contact", of(lambda one: one.contact), "time"),
        Column("backlog", "Backlog", of(lambda one: one.backlog), "count"),
        Column("behind", "Behind at the site", of(lambda one: one.behind), "count"),
        Column("timezone", "Time zone", lambda one: one.timezone),
        Column("cycle", "Cycle", lambda one: one.cycle),
        Column("layout", "Layout", lambda one: one.layout, "code"),
        Column("catalog_url", "Catalogue", lambda one: one.catalog_url, "code"),
        Column("created_at", "Since", lambda one: one.created_at, "time"),
    )
    may = visit.may(Action.SITE_ADMINISTER, SITE)
    fields = (
        Field("name", "Name", is_needed=True),
        Field("title", "Title"),
        Field("timezone", "Time zone", value="UTC"),
    )
    table = Table("stations", columns, lambda after: Rows(visit.client.stations.list()), "You are staff of no station.")
    action = ("name", "Enrol", "/administration/stations/token") if may else None
    more = {"fields": fields, "button": "Make a station"} if may else {}
    return _page(visit, "Stations", table, said, action=action, key="name", **more)


def add_station(visit: Visit) -> Response:
    """Make a station."""

    def done() -> Said:
        made = visit.client.stations.create(NewStation.model_validate(visit.form.some("name", "title", "timezone")))
        return Said(f"There is a station {made.name} now: enrol it.", is_good=True)

    return _tried(visit, stations, done)


def enrol(visit: Visit) -> Response:
    """Make a token with which the services of a station get their key, once."""

    def done() -> Said:
        made = visit.client.stations.make_token(visit.form.get("name", ""))
        words = f"At the station: dm station join --url {visit.client.url}, with this token, within a day."
        return Said(words, is_good=True, secret=made.token)

    return _tried(visit, stations, done)


def types(visit: Visit, said: Said = NOTHING) -> Response:
    """List the kinds of experiments."""
    columns: Sequence[Column[ExperimentType]] = (
        Column("name", "Type", lambda one: one.name),
        Column("description", "Description", lambda one: one.description),
        Column("index_keys", "Indexed keys", lambda one: one.index_keys or ["all"], "list"),
    )
    table = Table("types", columns, lambda after: Rows(visit.client.experiment_types.list()), "There is no type yet.")
    fields = (Field("name", "Name", is_needed=True), Field("description", "Description"))
    return _page(visit, "Experiment types", table, said, fields=fields, button="Make a type")


def add_type(visit: Visit) -> Response:
    """Make a kind of experiments."""

    def done() -> Said:
        new = NewExperimentType.model_validate(visit.form.some("name", "description"))
        return Said(f"There is a type {visit.client.experiment_types.create(new).name} now.", is_good=True)

    return _tried(visit, types, done)


def areas(visit: Visit, said: Said = NOTHING) -> Response:
    """List the storage areas."""
    columns: Sequence[Column[StorageArea]] = (
        Column("name", "Storage area", lambda one: one.name),
        Column("kind", "Kind", lambda one: one.kind),
        Column("path", "At the storage", lambda one: one.path, "code"),
        Column("station_url", "For a station", lambda one: one.station_url, "code"),
        Column("transfer", "Transfer", lambda one: one.transfer),
    )
    table = Table("areas", columns, lambda after: Rows(visit.client.storage_areas.list()))
    more: dict[str, Any] = {}
    if visit.may(Action.SITE_ADMINISTER, SITE):
        fields = (
            Field("name", "Name", is_needed=True),
            Field("path", "Path at the storage", is_needed=True, hint="Absolute."),
            Field("station_url", "Address for a station", hint="file://PATH, or what the transfer takes."),
            Field("transfer", "Transfer", value="copy"),
        )
        more = {"fields": fields, "button": "Add a storage area"}
    action = ("name", "Check", "/administration/areas/check")
    return _page(visit, "Storage areas", table, said, action=action, key="name", **more)


def add_area(visit: Visit) -> Response:
    """Add a storage area."""

    def done() -> Said:
        given = visit.form.some("name", "path", "station_url", "transfer")
        made = visit.client.storage_areas.add(
            NewStorageArea.model_validate({"station_url": f"file://{given.get('path', '')}", **given})
        )
        return Said(f"Storage area {made.name} is there: check it.", is_good=True)

    return _tried(visit, areas, done)


def check_area(visit: Visit) -> Response:
    """Prove that a storage area takes, keeps and gives back a file."""

    def done() -> Said:
        found: AreaCheck = visit.client.storage_areas.check(visit.form.get("name", ""))
        return Said(f"{found.name}: {found.message}", is_good=found.is_ok)

    return _tried(visit, areas, done)


def syncs(visit: Visit, said: Said = NOTHING) -> Response:
    """Show what can be taken over from the facility."""
    empty = "Nothing was taken over yet; `people` and `proposals` in the settings say where from."
    columns: Sequence[Column[Sync]] = (
        Column("created_at", "Asked for", lambda one: one.created_at, "time"),
        Column("kind", "What", lambda one: one.kind),
        Column("state", "State", lambda one: one.state, "state"),
        Column("ended_at", "Ended", lambda one: one.ended_at, "time"),
        Column("report", "Report", _told),
        Column("refused", "Refused", _refused),
        Column("uid", "Uid", lambda one: one.uid, "uid"),
    )

    def read(after: str | None) -> Rows[Sync]:
        page = visit.client.syncs.page(after)
        return Rows(page.items, page.next)

    table: Table[Sync] = Table("syncs", columns, read, empty)
    fields = (Field("kind", "What", "choice", choices=[str(one) for one in SyncKind]),)
    return _page(visit, "Sync with the facility", table, said, fields=fields, button="Take it over now")


def sync(visit: Visit) -> Response:
    """Take over people or proposals, and tell what that did."""

    def done() -> Said:
        try:
            kind = SyncKind(visit.form.get("kind", ""))
        except ValueError as error:
            raise InvalidError("say what is to be taken over") from error
        found = visit.client.syncs.run(kind)
        return Said(f"{found.state}: {_told(found)}", is_good=not found.message)

    return _tried(visit, syncs, done)


def _told(one: Sync) -> str:
    """Return what a sync did, in numbers."""
    report = one.report.model_dump(mode="json") if one.report else {}
    numbers = [f"{key.replace('_', ' ')} {value}" for key, value in report.items() if isinstance(value, int) and value]
    return one.message or ", ".join(numbers) or ("" if one.ended_at is None else "nothing changed")


def _refused(one: Sync) -> str:
    """Return which entries of the facility could not be taken over, and why."""
    return "; ".join(f"{each.what}: {each.why}" for each in one.report.refused) if one.report else ""


def keys(visit: Visit, said: Said = NOTHING) -> Response:
    """List one's own API keys."""
    columns: Sequence[Column[ApiKey]] = (
        Column("name", "Key", lambda one: one.name),
        Column("scopes", "For", lambda one: one.scopes, "list"),
        Column("experiment", "Only experiment", lambda one: one.experiment),
        Column("created_at", "Made", lambda one: one.created_at, "time"),
        Column("expires_at", "Expires", lambda one: one.expires_at, "time"),
    )
    table = Table("keys", columns, lambda after: Rows(visit.client.keys.list()), "You have no API key.")
    fields = (
        Field("name", "Name", is_needed=True),
        Field("scopes", "What it may be used for", "many", choices=[str(scope) for scope in Scope], is_needed=True),
        Field("days", "Days", "number", value="30"),
    )
    action = ("uid", "Revoke", "/keys/revoke")
    return _page(visit, "API keys", table, said, fields=fields, button="Make a key", action=action, key="uid")


def add_key(visit: Visit) -> Response:
    """Make an API key; its token is shown this once."""

    def done() -> Said:
        days = whole(visit.form.get("days", ""))
        if days is None or not 1 <= days <= LONGEST_KEY_DAYS:
            raise InvalidError(f"a key lasts from 1 to {LONGEST_KEY_DAYS} days")
        scopes = tuple(visit.form.all("scopes"))
        new = {"name": visit.form.get("name", ""), "scopes": scopes}
        expires_at = datetime.now(UTC) + timedelta(days=days)
        made = visit.client.keys.create(NewKey.model_validate({**new, "expires_at": expires_at}))
        return Said(f"This is the token of {made.key.name}. It is shown this once.", is_good=True, secret=made.token)

    return _tried(visit, keys, done)


def revoke_key(visit: Visit) -> Response:
    """Revoke an API key."""

    def done() -> Said:
        visit.client.keys.revoke(visit.form_uid("uid"))
        return Said("The key opens nothing any more.", is_good=True)

    return _tried(visit, keys, done)


def audit(visit: Visit) -> Response:
    """List who changed what at a service, newest first."""
    columns: Sequence[Column[AuditEntry]] = (
        Column("number", "Row", lambda one: one.number, "count"),
        Column("at", "When", lambda one: one.at, "time"),
        Column("username", "Who", lambda one: one.username),
        Column("action", "What", lambda one: one.action, "code"),
        Column("result", "Result", lambda one: one.result, "state"),
        Column("message", "Message", lambda one: one.message),
        Column("address", "From", lambda one: one.address),
    )
    name = visit.query.get("service", Service.STORAGE)
    if name not in tuple(Service):
        raise InvalidError(f'there is no service "{name[:40]}": the services are {", ".join(Service)}')
    log = visit.client.audit_log(Service(name))

    def read(after: str | None) -> Rows[AuditEntry]:
        before = whole(after or "")
        page = log.page(AuditQuery(username=visit.query.get("username") or None, before=before, limit=PAGE))
        return Rows(page.items, None if page.before is None else str(page.before))

    table = Table(f"audit-{name}", columns, read, "Nothing was changed yet.")
    return table.answer(visit, "administration/audit.html", services=list(Service), service=name)


ROUTES = (
    get("/administration", home),
    *listing("/administration/users", users),
    post("/administration/users", add_user),
    *listing("/administration/stations", stations),
    post("/administration/stations", add_station),
    post("/administration/stations/token", enrol),
    *listing("/administration/types", types),
    post("/administration/types", add_type),
    *listing("/administration/areas", areas),
    post("/administration/areas", add_area),
    post("/administration/areas/check", check_area),
    *listing("/administration/sync", syncs),
    post("/administration/sync", sync),
    *listing("/administration/audit", audit),
    *listing("/keys", keys),
    post("/keys", add_key),
    post("/keys/revoke", revoke_key),
)
